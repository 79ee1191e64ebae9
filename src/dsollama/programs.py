"""The programs that dsollama starts: where they are looked for, and what they are told.

The one owner of both, and of `subprocess` in this package:

- A program comes from where the user names it, from an absolute folder of PATH, or from the
  checkout that dsollama itself runs from. Never from the current folder: whoever can write there
  would otherwise decide what root runs. Entries of PATH that are empty, `.` or relative mean the
  current folder, and are passed over.
- A program gets no token, no password and no address with a login in it (`without_secrets`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsollama.errors import ProgramFailedError
from dsollama.privileges import as_caller

START_SECONDS = 60.0
"""A server that says nothing for longer has not come up."""

STOP_SECONDS = 10.0
"""After a polite signal; then a server is killed."""

_CHECKOUT = Path(__file__).parents[2]
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
"""HF_TOKEN, HUGGING_FACE_HUB_TOKEN, AWS_SECRET_ACCESS_KEY and the like."""

_LOGIN = re.compile(r"://[^/\s]*@")
"""In an address: HF_ENDPOINT=https://USER:PASSWORD@HOST, or a proxy's."""


def candidates(name: str, in_checkout: str) -> Iterator[Path]:
    """Yield the programs called `name`: those of PATH in order, then the checkout's own.

    Args:
        name: without a folder.
        in_checkout: its place in dsollama's checkout, where `make engines` puts it.
    """
    found = (shutil.which(name, path=folder) for folder in _folders())
    yield from (Path(each) for each in found if each)
    built = _CHECKOUT / in_checkout
    with as_caller():
        there = (_CHECKOUT / "pyproject.toml").is_file() and shutil.which(built)
    if there:
        yield built


def named(configured: str) -> Path | None:
    """Return the program that the user names, by its path, or by its name on PATH."""
    places = _folders() if os.sep not in configured else [None]
    with as_caller():
        found = (shutil.which(configured, path=folder) for folder in places)
        return next((Path(each).absolute() for each in found if each), None)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a program of somebody else's."""
    tokens = {environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")} - {None, ""}
    return {
        name: value
        for name, value in environ.items()
        if not _SECRET_NAME.search(name) and not _LOGIN.search(value) and value not in tokens
    }


def run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, without input.

    Args:
        command: the program's absolute path, and its arguments.
        environment: all of its variables; by default ours `without_secrets`.
        options: of subprocess.run.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it takes longer than the option `timeout`, in seconds.
    """
    return subprocess.run(
        list(command),
        env=without_secrets(os.environ) if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


def start(
    command: Sequence[str], *, environment: Mapping[str, str], **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program and do not wait for it; the arguments are those of `run`.

    Raises:
        OSError: it cannot be started.
    """
    return subprocess.Popen(
        list(command), env=dict(environment), stdin=subprocess.DEVNULL, **options
    )


@contextmanager
def serving(
    command: Sequence[str], environment: Mapping[str, str], log: Path, answers: Callable[[], bool]
) -> Iterator[None]:
    """Run a server while the block runs; the block begins once the server answers.

    Args:
        command: the program's absolute path, and its arguments.
        environment: all of its variables.
        log: the file for what the server says.
        answers: asks the server, and returns whether it is ready.

    Raises:
        ProgramFailedError: it does not come up within 60 s.
    """
    with log.open("wb") as out:
        server = start(
            command,
            environment=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its children are in its group and end with it
        )
    try:
        _await_answer(server, command, log, answers)
        yield
    finally:
        _stop(server)


def _await_answer(
    server: subprocess.Popen[bytes], command: Sequence[str], log: Path, answers: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if answers():
            return
        time.sleep(0.05)
    lines = log.read_text(errors="replace").strip().splitlines()
    typed = " ".join([Path(command[0]).name, *command[1:]])
    raise ProgramFailedError(
        f"`{typed}` did not come up: {lines[-1] if lines else 'it said nothing'}",
        f"Try `{typed}` by itself to see why.",
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def ourselves() -> list[str]:
    """Return the command that starts this very dsollama, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", "dsollama"]


def _folders() -> list[str]:
    """Return the absolute folders of PATH."""
    path = os.environ.get("PATH", os.defpath)
    return [folder for folder in path.split(os.pathsep) if Path(folder).is_absolute()]
