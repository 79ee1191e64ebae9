"""The digests of a blob's beginnings that a real install leaves in the ledger."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsollama.events import Noted
from dsollama.resources import read_template
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import Fault, LoopbackHub, Request
from dsollama.testing.tiny_model import tiny_model, write_shards
from dsollama.transfer.digests import BLOCK_BYTES
from dsollama.transfer.journal import claimed_bytes

from conftest import STEM, TERMINUS, Bench, make_repository

SHARDS = 5
HELD_SECONDS = 120.0


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model of 241 MB: three blocks and most of a fourth."""
    model = tiny_model(read_template("v3.1.jinja"), layers=8, expert_width=1500)
    return write_shards(tmp_path_factory.mktemp("larger"), STEM, model, SHARDS)


@pytest.fixture
def lab(larger: list[Path], tmp_path: Path) -> Iterator[Bench]:
    with LoopbackHub({TERMINUS: make_repository(larger)}) as hub:
        yield Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", larger)


def check(lab: Bench, digest: str) -> None:
    """Every prefix is that of the blob; the last is its own digest."""
    entry = Store(lab.store).ledger.read(digest)
    assert entry is not None
    expected, whole = [], hashlib.sha256()
    with Store(lab.store).blob_path(digest).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            expected.append(whole.hexdigest())
    assert len(expected) == 4
    assert entry.block == BLOCK_BYTES
    assert list(entry.prefixes) == expected
    assert digest == f"sha256:{expected[-1]}"


def test_of_an_install_without_trouble(lab: Bench) -> None:
    check(lab, lab.install().digest)


def test_of_one_with_a_shard_that_was_fetched_twice(lab: Bench) -> None:
    damaged: list[str] = []

    def once(request: Request) -> Fault | None:
        header = request.headers.get("Range", "").startswith("bytes=0-")
        if request.server == "cdn" and "-00003-of" in request.path and not header and not damaged:
            damaged.append(request.path)
            return Fault(damage=1000)
        return None

    lab.hub.fault = once
    digest = lab.install().digest
    assert damaged
    assert any("its bytes are wrong" in each.text for each in lab.events if isinstance(each, Noted))
    check(lab, digest)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_of_one_that_was_killed_and_went_on(
    part: float, lab: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(path.stat().st_size for path in lab.shards)
    killed = threading.Event()
    sent = lab.hub.sent

    def hold(count: int) -> None:
        """Send no more than this part, however late the kill comes."""
        sent(count)
        if lab.hub.bytes_sent >= part * size:
            killed.wait(HELD_SECONDS)

    monkeypatch.setattr(lab.hub, "sent", hold)
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", "--yes"],
        env=lab.environment() | {"DSOLLAMA_READ_TIMEOUT": str(HELD_SECONDS)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while lab.hub.bytes_sent < part * size or not any(map(claimed_bytes, lab.staged())):
        assert process.poll() is None
        time.sleep(0.0005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    killed.set()
    done = lab.install()
    assert done.resumed > 0
    check(lab, done.digest)
