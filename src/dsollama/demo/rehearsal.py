"""The demo: what a user will do, done once on a tiny model, with the times it took."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dsollama import programs
from dsollama.catalog.models import DEFAULT_MODEL, find_model
from dsollama.errors import ProgramFailedError
from dsollama.ollama.private import (
    free_port,
    private_environment,
    private_ollama,
    program_version,
)
from dsollama.resources import read_template
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub
from dsollama.testing.tiny_model import ANSWER_TEXT, THOUGHT_TEXT, tiny_model, write_shards
from dsollama.units import GB, format_bytes, format_duration

QUANT = "UD-Q2_K_XL"
SHARDS = 6
PROMPT = "Hello!"
COMMAND_SECONDS = 120
_MEGABIT = 10**6 / 8
_LINKS = (("100 Mbit/s", 100 * _MEGABIT), ("1 Gbit/s", 1000 * _MEGABIT))

Say = Callable[[str], None]


class _Clock:
    """Names steps and how long each took."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.times: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and remember its seconds."""
        self.say(f"\n== {title}")
        began = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - began))


def rehearse(ollama: Path, say: Say) -> None:
    """Run the rehearsal with the Ollama at `ollama`, telling `say` what happens.

    Raises:
        EngineError: a step failed; nothing is left behind all the same.
    """
    clock = _Clock(say)
    version = ".".join(map(str, program_version(ollama)))
    say(f"A rehearsal with Ollama {version} ({ollama}), in a folder that is removed at the end.")
    with tempfile.TemporaryDirectory(prefix="dsollama-demo-") as folder:
        _rehearse_in(Path(folder), ollama, clock)
    say("\n== What happened")
    for title, seconds in clock.times:
        say(f"  {format_duration(seconds):>9}  {title}")
    for line in real_needs():
        say(line)


def tiny_repository(folder: Path) -> tuple[str, HubRepository]:
    """Write the tiny model's shards below `folder`; return a repository like the real one."""
    model = find_model(DEFAULT_MODEL)
    stem = f"{model.title}-{QUANT}"
    repository = HubRepository()
    for path in write_shards(folder, stem, tiny_model(read_template("v3.1.jinja")), SHARDS):
        repository.add(f"{QUANT}/{path.name}", path)
    return model.repositories[0], repository


def real_needs() -> list[str]:
    """Return what the same install needs with the real model, from the documents' numbers."""
    model = find_model(DEFAULT_MODEL)
    size = model.sizes[QUANT.removeprefix("UD-")] * GB
    times = ", ".join(f"{format_duration(size / rate)} at {name}" for name, rate in _LINKS)
    return [
        f"\n== The real {model.title} {QUANT}",
        f"  download  {format_bytes(size)}: {times}",
        f"  disk      {format_bytes(size)} (no second copy)",
        f"  memory    {model.recommended_ram_gb} GB of RAM, or RAM and VRAM together, recommended",
        f"  command   dsollama install {QUANT}",
    ]


def _rehearse_in(folder: Path, ollama: Path, clock: _Clock) -> None:
    home, store = folder / "home", folder / "models"
    home.mkdir()
    environment = private_environment(home, store, free_port(), os.environ)
    with clock.step(f"A tiny DeepSeek in {SHARDS} shards"):
        name, repository = tiny_repository(folder / "hub")
        size = sum(file.size for file in repository.files.values())
        clock.say(f"{format_bytes(size)}, as {name} on a Hub on loopback")
    with LoopbackHub({name: repository}) as hub:
        environment["HF_ENDPOINT"] = hub.endpoint
        with clock.step(f"dsollama install {QUANT}"):
            printed = _run([*programs.ourselves(), "install", QUANT], environment, clock.say)
    plain, thinking = printed.split()
    with ExitStack() as running:
        with clock.step("ollama serve"):
            server = private_ollama(ollama, environment, folder / "ollama.log")
            clock.say(f"a private one, at {running.enter_context(server)}")
        _talk(ollama, plain, thinking, environment, clock)


def _talk(
    ollama: Path, plain: str, thinking: str, environment: Mapping[str, str], clock: _Clock
) -> None:
    ours = [*programs.ourselves(), "chat", plain, PROMPT]
    talks = (
        (f'ollama run {plain} "{PROMPT}"', [str(ollama), "run", plain, PROMPT], False),
        (f'ollama run {thinking} "{PROMPT}"', [str(ollama), "run", thinking, PROMPT], True),
        (f'dsollama chat {plain} "{PROMPT}"', ours, False),
        (f'dsollama chat --think {plain} "{PROMPT}"', [*ours, "--think"], True),
    )
    for title, command, thinks in talks:
        with clock.step(title):
            said = _run(command, environment, clock.say, both=True)
            if ANSWER_TEXT not in said or (THOUGHT_TEXT in said) != thinks:
                raise ProgramFailedError(
                    f"`{title}` did not answer as the tiny model must.",
                    "This Ollama treats the templates differently: please report its version.",
                )


def _run(
    command: Sequence[str], environment: Mapping[str, str], say: Say, *, both: bool = False
) -> str:
    """Run a command, show what it says, and return its stdout (and stderr, if `both`)."""
    done = programs.run(
        command,
        environment=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    errors, out = _without_spinner(done.stderr), str(done.stdout)
    for line in (errors + out).strip().splitlines():
        say(f"  {line}")
    if done.returncode != 0:
        raise ProgramFailedError(
            f"`{' '.join(command[-4:])}` failed with code {done.returncode}.",
            "Its own words are above.",
        )
    return errors + out if both else out


def _without_spinner(text: str) -> str:
    """Drop the lines that `ollama run` draws and wipes while a model loads."""
    return "".join(line for line in text.splitlines(keepends=True) if "\x1b[" not in line)
