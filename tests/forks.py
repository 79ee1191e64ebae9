"""dsollama's commands, stopped before their Nth change of a file under the store's lock.

The program is started once and forked for each run, because starting takes longer than running.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime")
"""Steps that others see: what is only being written has a name of its own."""

_PROGRAM = """
import importlib, json, os, pkgutil, sys
import dsollama, rich.progress
for module in pkgutil.walk_packages(dsollama.__path__, "dsollama."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from dsollama.cli.app import main

def run(order):
    left, held = order["before"], False
    def hook(event, arguments):
        nonlocal left, held
        if event == "open" and str(arguments[0]).endswith(".dsollama/lock"):
            held = True
        if not held or event not in order["changes"]:
            return
        left -= 1
        now = event == "os.rename" and str(arguments[1]) == order["when"]
        if now or left in order["at"]:
            for number in order["signals"]:
                os.kill(os.getpid(), number)
    sys.addaudithook(hook)
    out = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1); os.dup2(out, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["dsollama", *order["arguments"]]
    main()

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            run(order)
        except SystemExit as end:
            os._exit(end.code or 0)
        os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Forks:
    """A program that runs commands, one after another."""

    process: subprocess.Popen[str]
    output: Path

    def run(
        self,
        *arguments: str,
        signals: tuple[int, ...] = (),
        before: int = 0,
        times: int = 1,
        when: str = "",
    ) -> tuple[int, str]:
        """Run a command; return its exit code, negative for a signal, and what it said.

        Args:
            arguments: of dsollama.
            signals: that it gets, one after another.
            before: which change of a file, from 1 on; 0: none.
            times: before so many changes from there on.
            when: instead: before the file of this name is written.
        """
        order: dict[str, Any] = {
            "arguments": arguments,
            "signals": list(map(int, signals)),
            "before": before,
            "at": [-each for each in range(times)] if before else [],
            "changes": CHANGES,
            "when": when,
            "output": str(self.output),
        }
        _pipe(self.process.stdin).write(json.dumps(order) + "\n")
        _pipe(self.process.stdin).flush()
        return int(_pipe(self.process.stdout).readline()), self.output.read_text()


@contextmanager
def forks(environment: Mapping[str, str], output: Path) -> Iterator[Forks]:
    """Start the program; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Forks(process, output)
    finally:
        _pipe(process.stdin).close()
        process.wait(60)
        _pipe(process.stdout).close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
