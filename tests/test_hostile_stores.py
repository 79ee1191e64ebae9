"""Every command, on stores that are made to take memory and time: less than 256 MiB, and an end.

The stores are in hostile_stores.py. Memory is measured from outside. The time is a guard: most of
these take seconds, and each ended within 20 on an idle machine of two cores.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer

from dsollama.cli.app import app
from dsollama.store.store import Store
from handmade import tree
from hostile_stores import NAME, STORES, honest
from peak import GUARD_SECONDS, Measured, measured

from conftest import Bench

MAX_BYTES = 256 * 2**20
QUANT = "UD-Q2_K_XL"
STORE, OTHER = "{store}", "{other}"
TARGET = ["--store", STORE]


@dataclass(frozen=True)
class Line:
    """A command line, and the exit codes that a hostile store may end it with."""

    arguments: list[str]
    exits: frozenset[int] = frozenset({0, 2, 5, 7})


def line(*arguments: str, exits: set[int] | None = None) -> Line:
    return Line([*arguments], frozenset(exits or {0, 2, 5, 7}))


READING: dict[str, list[Line]] = {
    "list": [line("list", "--json", *TARGET)],
    "show": [line("show", NAME, "--json", *TARGET), line("show", "no:x", *TARGET)],
    "modelfile": [line("modelfile", NAME, *TARGET)],
    "verify": [line("verify", *TARGET), line("verify", "--quick", "--json", *TARGET)],
    "gc": [line("gc", "--json", *TARGET)],
    "remove": [
        line("remove", NAME, "--dry-run", "--json", *TARGET), line("remove", "no:x", *TARGET),
    ],
    "install": [
        line("install", QUANT, "--dry-run", *TARGET, exits={0, 2, 4, 5}),
        line("install", "--resume", "--dry-run", *TARGET, exits={0, 2, 3, 5}),
        line("install", QUANT, "--from-store", STORE, "--store", OTHER, exits={0, 2, 4, 5}),
    ],
}  # fmt: skip
ELSEWHERE: dict[str, list[Line]] = {
    "install": [
        line("install", QUANT, "--dry-run", "--from-dir", STORE + "/blobs", "--store", OTHER,
             exits={0, 2, 4, 5}),
        line("install", QUANT, "--via", "api", "--staging", STORE, "--dry-run", exits={2, 6}),
    ],
    "chat": [line("chat", NAME, "Hello", exits={6})],
    "template show": [line("template", "show", exits={0})],
    "template render": [line("template", "render", exits={2})],
    "demo": [line("demo", "--ollama", "/nonexistent/ollama", exits={6})],
}  # fmt: skip
"""What takes the store for something else, or looks at none: on the stores of ODD alone."""

ODD = ("sparse_files", "pipes", "endless_links")
CHANGING: dict[str, list[Line]] = {
    "verify": [line("verify", NAME, "--repair", *TARGET, exits={0, 2, 3, 5, 7})],
    "install": [line("install", QUANT, "--yes", "--force", *TARGET, exits={0, 2, 5})],
    "remove": [line("remove", NAME, "--all-variants", "--yes", *TARGET)],
    "gc": [line("gc", "--delete", "--all", "--yes", *TARGET)],
}


def commands(command: click.Command, name: str = "") -> Iterator[str]:
    """Yield the names of all commands of the program."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield name
    else:
        for each in inside.values():
            yield from commands(each, f"{name} {each.name}".strip())


def test_every_command_of_the_program_is_among_these() -> None:
    assert set(commands(typer.main.get_command(app))) == {*READING, *ELSEWHERE}
    assert set(CHANGING) <= set(READING)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that does not stay: a hostile one has hundreds of thousands of files."""
    opened = Store(tmp_path / "hostile")
    honest(opened)
    yield opened
    shutil.rmtree(tmp_path / "hostile", ignore_errors=True)


@pytest.mark.parametrize("fill", STORES, ids=lambda fill: fill.__name__)
def test_every_command_ends_in_bounded_memory(
    fill: Callable[[Store], None], store: Store, bench: Bench, tmp_path: Path
) -> None:
    fill(store)
    before = names(store)
    reading = [each for lines in READING.values() for each in lines]
    if fill.__name__ in ODD:
        reading += [each for lines in ELSEWHERE.values() for each in lines]
    for each in reading:
        require_bounded(each, store, bench, tmp_path)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert names(store) == before, "a command that only reads changed the store"
    for each in (each for lines in CHANGING.values() for each in lines):
        require_bounded(each, store, bench, tmp_path)


def names(store: Store) -> set[str]:
    """Return what is there, but for what an install that was refused leaves empty, or its lock."""
    found = set()
    for folder, _, files in os.walk(store.root):
        found.update(os.path.join(folder, each) for each in files)  # noqa: PTH118 - many
    return found - {str(store.own / "lock")}


def require_bounded(each: Line, store: Store, bench: Bench, folder: Path) -> None:
    values = {STORE: str(store.root), OTHER: str(folder / "other")}
    arguments = list(each.arguments)
    for key, value in values.items():
        arguments = [argument.replace(key, value) for argument in arguments]
    environment = bench.environment() | {"OLLAMA_MODELS": str(store.root)}
    command = [sys.executable, "-m", "dsollama", *arguments]
    done = measured(command, environment, folder, GUARD_SECONDS)
    print(f"{done.peak // 2**20:4} MiB, exit {done.exit}: {' '.join(each.arguments)}")
    said = f"{arguments}: {done.err[:2000]}"
    assert done.peak < MAX_BYTES, said
    assert done.exit in each.exits, said
    require_told(done, arguments, said)


def require_told(done: Measured, arguments: list[str], said: str) -> None:
    assert "Traceback" not in done.err, said
    assert "dsollama has a bug" not in done.err, said
    assert "Error: " in done.err or done.exit in {0, 7}, said
    if "--json" in arguments:
        for text in done.out.splitlines():
            json.loads(text)


def test_a_store_of_such_a_size_can_be_cleaned(store: Store, bench: Bench, tmp_path: Path) -> None:
    """What one run leaves for the next is told, and in the end nothing is left."""
    clean = tree(store.root)
    for number in range(12_000):
        (store.own / "tmp").mkdir(exist_ok=True)
        (store.own / "removing").mkdir(exist_ok=True)
        (store.own / "removing" / f"{number}.json").write_bytes(b"{}")
    told = []
    for _ in range(3):
        each = line("gc", "--delete", "--json", *TARGET, exits={0})
        arguments = [argument.replace(STORE, str(store.root)) for argument in each.arguments]
        command = [sys.executable, "-m", "dsollama", *arguments]
        done = measured(command, bench.environment(), tmp_path, GUARD_SECONDS)
        assert done.exit == 0, done.err
        found = json.loads(done.out)
        told.append((len(found["deleted"]), found["more_findings"], "more like these" in done.err))
    assert told == [(10_000, 2_000, True), (2_000, 0, False), (0, 0, False)]
    assert tree(store.root) == clean
