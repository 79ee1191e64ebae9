"""A process that is stopped (Ctrl-Z, a suspended laptop) goes on where it was: its pause is no
server's fault.

SIGSTOP stands in for the suspended laptop, too: there the kernel's monotonic clock stands still by
itself, so a stopped process is the harder case.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from dsollama.waiting import TICK_SECONDS
from faults import wire

from conftest import Bench

STOPPED_SECONDS = 10.0
GIVE_UP_SECONDS = 5.0
GUARD_SECONDS = 120.0

CLOCK = """
import sys, time
from dsollama.waiting import awake
began, real = awake(), time.monotonic()
print("ready", flush=True)
sys.stdin.readline()
print(awake() - began, time.monotonic() - real)
"""

INSTALL = f"""
from dsollama.sources import ranges
ranges.GIVE_UP_SECONDS = {GIVE_UP_SECONDS}
from dsollama.cli.app import main
main()
"""


def test_the_clock_stands_still_while_the_process_does() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            stop(process.pid)
            out, _ = process.communicate("go on\n", timeout=GUARD_SECONDS)
        finally:
            process.kill()
    seconds, real = map(float, out.split())
    assert real >= STOPPED_SECONDS
    assert 0 <= seconds <= real - STOPPED_SECONDS + 2 * TICK_SECONDS


def test_a_stop_longer_than_a_download_is_waited_for_ends_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    """The connection is lost meanwhile, so the first thing that the program sees is an error."""
    held, released, broken = threading.Event(), threading.Event(), threading.Event()

    def hold(handler: object) -> None:
        held.set()
        assert released.wait(GUARD_SECONDS)
        broken.set()
        wire.reset(handler)  # type: ignore[arg-type]

    from dsollama.testing.loopback_hub import Fault, Request

    def meet(request: Request) -> Fault | None:
        late = "bytes=0-" not in request.headers.get("Range", "")
        first = request.server == "cdn" and late and not held.is_set()
        return Fault(answer=hold) if first else None

    bench.hub.fault = meet
    quick = {"DSOLLAMA_CONNECTIONS": "1", "DSOLLAMA_READ_TIMEOUT": "100", "DSOLLAMA_MAX_WAIT": "1"}
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", INSTALL, "install", "UD-Q2_K_XL", "--yes"],
            env=bench.environment() | quick, stdin=subprocess.DEVNULL, stderr=err,
        )  # fmt: skip
    try:
        assert held.wait(GUARD_SECONDS)
        stop(process.pid, released)
        assert broken.wait(GUARD_SECONDS)
        status = process.wait(GUARD_SECONDS)
    finally:
        released.set()
        process.kill()
        process.wait()
    said = (tmp_path / "err").read_text()
    assert (status, said.count("try 2 in")) == (0, 1), said


def stop(process: int, meanwhile: threading.Event | None = None) -> None:
    os.kill(process, signal.SIGSTOP)
    try:
        if meanwhile is not None:
            meanwhile.set()
        time.sleep(STOPPED_SECONDS)
    finally:
        os.kill(process, signal.SIGCONT)
