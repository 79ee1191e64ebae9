"""The bytes of a transfer: written in any order, viewed in the order of their digests.

All bytes go to the staging files. What was received just ahead of the digests is also still in
memory (`ring`); the rest is read back. Nobody outside knows which it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

from dsollama.transfer.digests import rotating_buffers
from dsollama.transfer.region import CELL_BYTES, Region
from dsollama.transfer.ring import RingBuffer
from dsollama.transfer.staged import StagedFile


class Buffer:
    """The staging files and the memory in front of them, by position; safe to use by threads."""

    def __init__(self, regions: Sequence[Region]) -> None:
        """Prepare for `regions`, which are in order; `open` opens their files."""
        origins = {region.file: region.origin for region in regions}
        self._paths: list[Path] = list(origins)
        self._origins = list(origins.values())
        self._files: list[StagedFile] = []
        self._ring = RingBuffer()
        self._outside: list[memoryview] = []
        self._read_back = rotating_buffers(CELL_BYTES)

    def open(self) -> None:
        """Open or make the staging files.

        Raises:
            StoreError: one cannot be opened; then none is open.
        """
        try:
            for path in self._paths:
                self._files.append(StagedFile(path))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the staging files."""
        while self._files:
            self._files.pop().close()

    @property
    def front(self) -> int:
        """Position before which everything is released."""
        return self._ring.front

    def reaches(self, position: int) -> bool:
        """Whether `position` is so close to the front that nothing has to be read back there."""
        return self._ring.reaches(position)

    def write(self, position: int, limit: int, receive: Callable[[memoryview], int]) -> int:
        """Have bytes received for `position` and what follows, and write them to their place.

        Args:
            position: where they begin.
            limit: where they end at the latest; they also end where their cell does.
            receive: fills the beginning of the memory that it is given and returns how many bytes.

        Returns:
            How many bytes were received.

        Raises:
            StoreError: the disk refused.
        """
        size = min(limit - position, CELL_BYTES - position % CELL_BYTES)
        room = self._ring.take(position)
        if room is None:
            return self._write_outside(position, size, receive)
        count = 0
        try:
            count = receive(room[:size])
            file, offset = self._place(position)
            file.write(room[:count], offset, direct=True)
        finally:
            self._ring.put(position, count)
        return count

    def _write_outside(self, position: int, size: int, receive: Callable[[memoryview], int]) -> int:
        """Write what the ring has no room for; one buffer for each that does so at once."""
        try:
            memory = self._outside.pop()
        except IndexError:
            memory = memoryview(bytearray(CELL_BYTES))
        count = receive(memory[:size])
        file, offset = self._place(position)
        file.write(memory[:count], offset, direct=False)
        self._outside.append(memory)
        return count

    def view(self, position: int, limit: int) -> memoryview:
        """Return bytes that were written from `position` on.

        At least one byte, at most up to `limit`, and no further than their cell. They stay as they
        are until `release` passes them, if no more than READ_AHEAD other views are read meanwhile.

        Raises:
            StoreError: the disk refused.
            CorruptShardError: a staging file is shorter than it was.
        """
        limit = min(limit, (position // CELL_BYTES + 1) * CELL_BYTES)
        kept = self._ring.get(position, limit)
        if kept is not None:
            return kept
        view = next(self._read_back)[: limit - position]
        file, offset = self._place(position)
        file.read(view, offset)
        return view

    def release(self, position: int) -> None:
        """Nobody reads what lies before `position` any more."""
        self._ring.advance(position)

    def rewind(self, position: int) -> None:
        """Begin again at `position`: what is there is going to be written once more."""
        self._ring.rewind(position)

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            StoreError: the disk refused.
        """
        for file in self._files:
            file.sync()

    def _place(self, position: int) -> tuple[StagedFile, int]:
        """Return the file of `position`, and its offset there."""
        index = bisect_right(self._origins, position) - 1
        return self._files[index], position - self._origins[index]
