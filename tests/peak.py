"""How much memory a program takes, measured from outside (Linux).

The kernel's number for a child (wait4's ru_maxrss) begins with what its parent had when it was
started, and pytest is large. So a small Python stands between: it starts the program, waits for it,
writes the number down and ends as the program did.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GUARD_SECONDS = 300.0
_BETWEEN = """
import os, signal, sys
passed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
for number in passed:
    signal.signal(number, lambda number, _frame: os.kill(child, number))
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, setsigdef=[signal.SIGPIPE])
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(used.ru_maxrss))
code = os.waitstatus_to_exitcode(status)
if code < 0:
    if -code in passed:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def watched(note: Path) -> list[str]:
    """Return what to put before a command, so that `peak_bytes(note)` tells of it.

    SIGINT, SIGTERM and SIGHUP are passed on; SIGKILL ends what stands between alone.
    """
    return [sys.executable, "-I", "-S", "-c", _BETWEEN, str(note)]


def peak_bytes(note: Path) -> int:
    """Return the most memory that the command had at once, or one of its own programs."""
    return int(note.read_text()) * 1024


@dataclass(frozen=True)
class Measured:
    """A program that ended: its exit code, its output, and its peak memory in bytes."""

    exit: int
    out: str
    err: str
    peak: int


def measured(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path,
    seconds: float = GUARD_SECONDS,
) -> Measured:  # fmt: skip
    """Run a command and measure it.

    Args:
        command: with its arguments; nothing comes on its stdin.
        environment: all of it.
        folder: where a note may be written.
        seconds: a guard against a program that hangs.

    Raises:
        subprocess.TimeoutExpired: it took longer; it was killed.
    """
    note = folder / "peak"
    process = subprocess.Popen(
        [*watched(note), *map(str, command)],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Measured(process.returncode, out, err, peak_bytes(note))
