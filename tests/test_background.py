"""The suite beside other work: in the background, under nohup, with signals blocked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

DEAF = """
import os, signal, sys
for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

STARTS_ONE = (
    """
import subprocess, sys
from conftest import pytest_configure

SAYS = """
    + repr("""
import json, signal, sys
ignored = [s.name for s in signal.Signals if signal.getsignal(s) is signal.SIG_IGN]
blocked = [s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
json.dump([ignored, blocked], sys.stdout)
""")
    + """

pytest_configure()
subprocess.run([sys.executable, "-c", SAYS], check=True)
"""
)

STOPS = {"SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT"}


def test_what_a_test_starts_inherits_no_deafness() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF, "-c", STARTS_ONE],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    ignored, blocked = json.loads(done.stdout)
    assert STOPS.isdisjoint({*ignored, *blocked})


@pytest.mark.parametrize("number", sorted(STOPS))
def test_the_suite_stays_as_deaf_as_it_was_told_to_be(number: str) -> None:
    code = f"""
import os, signal
from conftest import pytest_configure

signal.signal(signal.{number}, signal.SIG_IGN)
pytest_configure()
os.kill(os.getpid(), signal.{number})
print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout == "goes on\n", done.stderr


def test_the_end_of_another_run_leaves_this_runs_folders(tmp_path: Path) -> None:
    """Two runs on one machine share pytest's place for temporary folders."""
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        ROOT / "pyproject.toml",
        "-p",
        "no:cacheprovider",
    ]
    (tmp_path / "test_other.py").write_text("def test_it(tmp_path): pass\n")
    other = [str(each) for each in [*run, tmp_path / "test_other.py"]]
    (tmp_path / "test_outer.py").write_text(f"""
import subprocess

def test_it(tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    subprocess.run({other!r}, check=True)
    assert mine.is_dir()
""")
    (tmp_path / "shared").mkdir()
    names = ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [*run, tmp_path / "test_outer.py"],
        env=kept | {"TMPDIR": str(tmp_path / "shared")}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
