"""The quants of a repository: which there are, of which files, and which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsollama.catalog.quants import match_quant, quant_label
from dsollama.errors import (
    AmbiguousQuantError,
    MalformedGgufError,
    NoGgufError,
    UnknownQuantError,
)
from dsollama.gguf.shards import ShardSet, find_shard_sets
from dsollama.sources.source import ListedFile, Listing
from dsollama.units import format_bytes

MAX_CHOICES = 60
"""How many quants are listed for a wrong one."""

MAX_PLACES = 5
"""Of a quant that a repository holds more than once, as many are named."""

MAX_SHARDS = 4096
"""Of one set; DeepSeek's 671B models would be some 1,100 with a shard for every tensor."""


@dataclass(frozen=True)
class Quant:
    """A quant of a repository.

    Attributes:
        label: as the repository writes it.
        place: its files' path up to the numbers of the shards.
        paths: its files, in order; some may be missing.
        size: bytes of the files that are there.
        shards: the set.
    """

    label: str
    place: str
    paths: tuple[str, ...]
    size: int
    shards: ShardSet


def list_quants(repository: Listing) -> tuple[Quant, ...]:
    """Return every quant of a repository, the smallest first.

    Raises:
        NoGgufError: it holds no GGUF file.
    """
    sets = find_shard_sets(repository.files)
    if not sets:
        raise NoGgufError(
            f"The repository {repository.name} holds no GGUF file.",
            "GGUF repositories usually end in -GGUF.",
        )
    found = (_quant(repository, each) for each in sets)
    return tuple(sorted(found, key=lambda each: (each.size, each.label, each.place)))


def choose_quant(repository: Listing, typed: str) -> Quant:
    """Return the quant that is meant, with all its files.

    Raises:
        NoGgufError: the repository holds no GGUF file.
        UnknownQuantError: it has none that is called so.
        AmbiguousQuantError: several are meant.
        ShardError: files are missing, or there are more than any model has.
    """
    quants = list_quants(repository)
    try:
        label = match_quant(typed, [each.label for each in quants])
    except (UnknownQuantError, AmbiguousQuantError) as error:
        error.hint = _choices(repository, quants)
        raise
    found = [each for each in quants if each.label == label]
    if len(found) > 1:
        raise AmbiguousQuantError(
            f"The repository holds {label} {len(found)} times: "
            f"{', '.join(each.place for each in found[:MAX_PLACES])}"
            f"{'...' if len(found) > MAX_PLACES else '.'}",
            "Take another quant, or a --revision that has it once.",
        )
    shards = found[0].shards
    shards.require_complete()
    if shards.count > MAX_SHARDS:
        raise MalformedGgufError(
            f"The set {shards.stem!r} has {shards.count} shards, which no real model has."
        )
    return found[0]


def files_of(repository: Listing, quant: Quant) -> tuple[ListedFile, ...]:
    """Return the files of a complete quant, in order."""
    return tuple(repository.files[path] for path in quant.paths)


def means(typed: str, label: str) -> bool:
    """Whether a typed quant is the one that is called `label`."""
    try:
        return match_quant(typed, [label]) == label
    except (UnknownQuantError, AmbiguousQuantError):
        return False


def _quant(repository: Listing, shards: ShardSet) -> Quant:
    size = sum(repository.files[path].size for path in shards.paths)
    return Quant(quant_label(shards.stem), shards.prefix, tuple(shards.paths), size, shards)


def _choices(repository: Listing, quants: Sequence[Quant]) -> str:
    lines = [f"  {each.label:<14} {format_bytes(each.size)}" for each in quants[:MAX_CHOICES]]
    return f"{repository.name} holds:\n" + "\n".join(lines)
