"""The suite beside other work: in the background, under nohup, with signals blocked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=True,
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
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "goes on\n", done.stderr
