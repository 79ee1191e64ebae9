"""A piece of garbage: what it is, whose, and what may delete it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from dsollama.store.store import Store
from dsollama.store.walk import Seen, disk_bytes, is_own_folder, last_touched, look, printable, walk

GRACE_SECONDS = 3600.0
"""What is younger and not ours may belong to an Ollama at work; its own pruning waits as long."""

NOT_OURS = "is nothing that Ollama or dsollama puts there"


class Kind(StrEnum):
    """What a finding is."""

    BLOB = "orphan-blob"
    PARTIAL = "partial-download"
    STAGING = "interrupted-install"
    LEFTOVER = "leftover"
    MODELFILE = "modelfile"
    LEDGER = "ledger-entry"


class Sweep(StrEnum):
    """What deletes a finding."""

    OWN = "--delete"
    ALL = "--delete --all"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of garbage, or something that looks like it and is left alone.

    Attributes:
        kind: what it is.
        path: file, or folder of an interrupted install.
        bytes: of the disk that become free.
        why: why it is garbage, or is left alone; the rest of a sentence.
        ours: whether dsollama put it there.
        touched: when it was last changed, seconds since 1970.
        sweep: what deletes it.
        in_place: bytes from which an interrupted install would go on.
    """

    kind: Kind
    path: Path
    bytes: int
    why: str
    ours: bool
    touched: float
    sweep: Sweep
    in_place: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return found | {"path": printable(self.path)}


def entries(store: Store, *parts: str) -> Iterator[Seen]:
    """Walk a folder of the store; one behind a link is yielded itself, with its problem."""
    folder = store.root.joinpath(*parts)
    if is_own_folder(store.root, *parts[:-1]):
        yield from walk(folder)
    elif (status := look(folder).status) is not None:
        yield Seen(folder, (), status, "lies behind a symbolic link")


def finding(kind: Kind, seen: Seen, why: str, sweep: Sweep, *, ours: bool) -> Finding:
    """Make a finding of a file; what is not a regular one is left alone, whatever was meant."""
    if seen.problem:
        why, sweep = f"{seen.problem}, so it is left alone", Sweep.NEVER
    size = disk_bytes(seen.status) if seen.status else 0
    touched = last_touched(seen.status) if seen.status else 0.0
    return Finding(kind, seen.path, size, why, ours, touched, sweep)


def age(seen: Seen, now: float) -> float:
    """Return for how many seconds the file has not been touched."""
    return now - last_touched(seen.status) if seen.status else 0.0
