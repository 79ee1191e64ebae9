"""kill -9 at any moment loses a second or two of work, never the model, and leaves nothing."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsollama.demo.loopback_hub import LoopbackHub
from dsollama.demo.tiny_model import tiny_model, write_shards
from dsollama.resources import read_template

from conftest import STEM, TERMINUS, Bench, make_repository

SHARDS = 6
KILLS = 3
ROUNDS = 2


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model of some 400 MB, so that a kill hits the transfer and not only the start."""
    model = tiny_model(read_template("v3.1.jinja"), layers=8, expert_width=2900)
    return write_shards(tmp_path_factory.mktemp("larger"), STEM, model, SHARDS)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killed_again_and_again_it_ends_right(
    seed: int, larger: list[Path], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    with LoopbackHub({TERMINUS: make_repository(larger)}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", larger)
        command = [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", "--yes", "--json"]
        killed = 0
        for _ in range(KILLS):
            process = subprocess.Popen(
                command, env=bench.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert process.stdout is not None
            for line in process.stdout:  # the moment counts from the download's start
                if b'"step": "download"' in line:
                    break
            time.sleep(chance.uniform(0, 0.7))
            process.kill()
            killed += process.wait() == -9
            assert bench.files() == {} or process.returncode == 0
        done = subprocess.run(
            command,
            env=bench.environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    installed = json.loads(done.stdout.splitlines()[-1])
    blob = bench.store / "blobs" / installed["digest"].replace(":", "-")
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert killed >= 1
    assert installed["digest"] == f"sha256:{found}"
    assert not bench.staged()
