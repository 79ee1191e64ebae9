"""Every file of examples/ runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsollama.testing.tiny_model import ANSWER_TEXT, THOUGHT_TEXT

from conftest import ROOT, Bench, Engine

EXAMPLES = ROOT / "examples"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def test_every_example_has_its_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        "README.md", "chat.py", "openai.sh", "install.sh",
    }  # fmt: skip


@pytest.mark.engines
def test_chat(engine: Engine) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "chat.py", engine.names[1]],
        env=dict(engine.environment), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (ANSWER_TEXT + "\n", THOUGHT_TEXT)


@pytest.mark.engines
def test_openai(engine: Engine) -> None:
    done = subprocess.run(
        [EXAMPLES / "openai.sh", engine.names[0]],
        env=dict(engine.environment), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert ANSWER_TEXT in done.stdout


def test_install(bench: Bench) -> None:
    done = subprocess.run(
        [EXAMPLES / "install.sh", "q2_k_xl"],
        env=bench.environment() | {"PATH": PATH}, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert done.stdout.split()[0] == "deepseek-v3.1-terminus:UD-Q2_K_XL"
