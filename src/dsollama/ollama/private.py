"""A private Ollama: own port, own home, one store; gone when its block ends."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dsollama import programs
from dsollama.errors import DsollamaError, ProgramMissingError
from dsollama.ollama.server import OLDEST, Server
from dsollama.settings import Patience

_IN_CHECKOUT = ".engines/bin/ollama"


def find_ollama(configured: str | None = None) -> Path:
    """Return an Ollama of at least 0.30: the configured one, one on PATH, or the checkout's own.

    Raises:
        ProgramMissingError: there is none, or only an older one.
    """
    if configured:
        given = programs.named(configured)
        found = iter([given] if given else [])
    else:
        found = programs.candidates("ollama", _IN_CHECKOUT)
    older = ""
    for candidate in found:
        version = program_version(candidate)
        if version >= OLDEST:
            return candidate
        older = older or f" ({candidate} is {'.'.join(map(str, version)) or 'of no version'})"
    raise ProgramMissingError(
        f"No Ollama 0.30 or newer was found{older}.",
        "Install it from https://ollama.com/download; in a checkout, `make engines` builds one.",
    )


def program_version(program: Path) -> tuple[int, ...]:
    """Return what `ollama --version` says, such as (0, 33, 0); empty if it says nothing."""
    try:
        done = programs.run([str(program), "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.findall(r"version is (\d+)\.(\d+)\.(\d+)", done.stdout + done.stderr)
    return tuple(map(int, match[-1])) if match else ()


def private_environment(
    home: Path, store: Path, port: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment for a private Ollama and its clients.

    Args:
        home: a folder of its own, where Ollama keeps its key.
        store: OLLAMA_MODELS.
        port: on 127.0.0.1.
        environ: the surrounding environment; secrets and what would change the engines, the Hub's
            client or the way to loopback are left out.
    """
    kept = {
        name: value
        for name, value in programs.without_secrets(environ).items()
        if not name.startswith(("OLLAMA_", "LLAMA_", "HF_", "HUGGING"))
        and not name.lower().endswith("_proxy")
    }
    return kept | {
        "HOME": str(home),
        "OLLAMA_MODELS": str(store),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
    }


@contextmanager
def private_ollama(program: Path, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run `ollama serve` and yield its address once it answers; afterwards stop it and its runners.

    Raises:
        ProgramFailedError: it does not come up.
    """
    address = f"http://{environment['OLLAMA_HOST']}"
    started = Server(address, Patience(server=2.0))

    def answers() -> bool:
        try:
            started.any_version()
        except DsollamaError:
            return False
        return True

    with programs.serving([str(program), "serve"], environment, log, answers):
        yield address


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
