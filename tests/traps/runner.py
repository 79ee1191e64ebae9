"""Runs many dsollama commands in a row, each in a process of its own that is forked from this one.

A start of Python for each would cost most of the time. Lines of JSON on stdin: `argv`, `out` (where
stdout and stderr go), `fd9` (a file that is open as number 9), `seconds` (a guard). For each a line
with the exit code on stdout, or null where it had to be killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
from typing import Any, NoReturn


def _import_all() -> None:
    import dsollama

    for module in pkgutil.walk_packages(dsollama.__path__, "dsollama."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _child(run: dict[str, Any]) -> NoReturn:
    try:
        os.setsid()
        out = os.open(run["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(run["fd9"], os.O_RDWR), 9)
        os.chdir("/")
        sys.argv = ["dsollama", *run["argv"]]
        from dsollama.cli.app import main

        main()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:  # noqa: BLE001
        os.write(2, f"the runner caught {error!r}\n".encode())
        os._exit(99)
    os._exit(98)


def _ended(child: int, seconds: float) -> int | None:
    """Wait for the child; kill it, and what it has started, when its time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    _import_all()
    gc.collect()
    gc.freeze()  # or each child copies the memory that its collector looks at
    for line in sys.stdin:
        wanted = json.loads(line)
        forked = os.fork()
        if forked == 0:
            _child(wanted)
        print(json.dumps(_ended(forked, wanted["seconds"])), flush=True)
