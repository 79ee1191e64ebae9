"""A source of shards in memory, and the regions of a small transfer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from dsollama.span import Span
from dsollama.transfer.region import Region, make_regions
from dsollama.transfer.shard import PlannedShard

HEADER = 7_008
HEAD = b"a shard's own header"
REMEDY = "fetching it once more"
Hook = Callable[[str, int], None]


def no_hook(_path: str, _offset: int) -> None:
    """Let a read be."""


class MemorySource:
    """Gives the bytes of shards; wrong ones, where there are any, until they are rejected.

    `hook` is called before each read, with the shard and the offset in it, and may raise.
    """

    def __init__(self, shards: Mapping[str, bytes], hook: Hook = no_hook) -> None:
        self.shards = shards
        self.wrong: dict[str, bytes] = {}
        self.remedy: str | None = REMEDY
        self.hook = hook
        self.opened: list[tuple[str, int, int]] = []
        self.cancelled = False

    def open(self, path: str, start: int, end: int, file_size: int) -> MemoryStream:
        assert file_size == len(self.shards[path])
        self.opened.append((path, start, end))
        return MemoryStream(self, path, self.wrong.get(path, self.shards[path]), start, end)

    def cancel(self) -> None:
        self.cancelled = True

    def reject(self, path: str) -> str | None:
        self.wrong.pop(path, None)
        return self.remedy


class MemoryStream:
    """A range of a shard, in reads of at most a MiB."""

    def __init__(self, source: MemorySource, path: str, data: bytes, start: int, end: int) -> None:
        self._source, self._path, self._data = source, path, data
        self._at, self._end = start, end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def readinto(self, view: memoryview) -> int:
        self._source.hook(self._path, self._at)
        end = min(self._at + min(len(view), 2**20), self._end)
        assert end > self._at
        count = end - self._at
        view[:count] = self._data[self._at : end]
        self._at = end
        return count


def make_shards(*sizes: int) -> dict[str, bytes]:
    """Return shards by name whose bytes behind HEAD have these sizes."""
    chance = random.Random(len(sizes))
    return {f"shard-{n}": HEAD + chance.randbytes(size) for n, size in enumerate(sizes, start=1)}


def merged_regions(shards: Mapping[str, bytes], file: Path) -> list[Region]:
    """Return the regions of one file: HEADER bytes, then each shard padded to 32 bytes."""
    spans, at = [], HEADER
    for index, data in enumerate(shards.values()):
        spans.append(Span(index, len(HEAD), at, len(data) - len(HEAD)))
        at += -(-spans[-1].size // 32) * 32
    heads = dict.fromkeys(range(len(spans)), HEAD)
    return make_regions(planned(shards), spans, dict.fromkeys(heads, file), heads, at)


def merged_bytes(shards: Mapping[str, bytes]) -> bytes:
    """Return what the regions' file is in the end."""
    bodies = [data[len(HEAD) :] for data in shards.values()]
    return bytes(HEADER) + b"".join(body + bytes(-len(body) % 32) for body in bodies)


def separate_regions(shards: Mapping[str, bytes], folder: Path) -> list[Region]:
    """Return the regions of a file for each shard."""
    spans = [Span(index, 0, 0, len(data)) for index, data in enumerate(shards.values())]
    files = {index: folder / name for index, name in enumerate(shards)}
    return make_regions(planned(shards), spans, files, dict.fromkeys(files, b""), 0)


def planned(shards: Mapping[str, bytes]) -> Sequence[PlannedShard]:
    """Return what a listing says of them."""
    return [PlannedShard(name, len(data), sha256(data), "") for name, data in shards.items()]


def sha256(data: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(data).hexdigest()
