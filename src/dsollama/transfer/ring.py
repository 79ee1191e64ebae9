"""The memory of a buffer: a ring of cells that keeps what was received until it is digested.

The ring follows the digests: cell N of the transfer lies in slot N modulo their number. What is
received close ahead of the digests is put there and never read back. There is no room for what
comes further ahead.
"""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from dataclasses import dataclass

from dsollama.transfer.region import CELL_BYTES

CELLS = 16
"""64 MiB: a few connections' segments."""


@dataclass
class _Slot:
    """One cell of memory: which cell of the transfer it holds, and which positions of that."""

    cell: int = -1
    start: int = 0
    end: int = 0
    filling: bool = False


class RingBuffer:
    """The ring; safe to use by threads."""

    def __init__(self) -> None:
        """Take the memory (CELLS * CELL_BYTES), which the system gives page by page as used.

        In huge pages where it has them: in those of 4 KiB the digests wait for the page tables
        (a virtual machine, SHA-256 around a ring of 64 MiB: 1.2 GB/s against 1.7).
        """
        # A page-aligned map, and cells on the file's own grid: so a write can be a direct one.
        memory = mmap.mmap(-1, CELLS * CELL_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory = memoryview(memory)
        self._slots = [_Slot() for _ in range(CELLS)]
        self._front = 0
        self._lock = threading.Lock()

    @property
    def front(self) -> int:
        """Position up to which everything is digested."""
        return self._front

    def reaches(self, position: int) -> bool:
        """Whether the ring is long enough to have a slot for `position`, be it taken or not."""
        return 0 <= position // CELL_BYTES - self._front // CELL_BYTES < CELLS

    def take(self, position: int) -> memoryview | None:
        """Return room from `position` to the end of its cell; None where there is none.

        What was taken must be given back to `put`.
        """
        with self._lock:
            slot = self._slot(position)
            if slot.filling or not self.reaches(position):
                return None
            if slot.cell != position // CELL_BYTES or slot.end != position:
                slot.cell = position // CELL_BYTES
                slot.start = slot.end = position
            slot.filling = True
        return self._view(position, CELL_BYTES)

    def put(self, position: int, size: int) -> None:
        """Give back what `take(position)` gave; its first `size` bytes are filled."""
        with self._lock:
            slot = self._slot(position)
            slot.filling = False
            slot.end = position + size

    def get(self, position: int, limit: int) -> memoryview | None:
        """Return the kept bytes from `position` to at most `limit`, within one cell; else None.

        They stay as they are until `advance` passes them.
        """
        with self._lock:
            slot = self._slot(position)
            if slot.cell != position // CELL_BYTES or not slot.start <= position < slot.end:
                return None
            return self._view(position, min(slot.end, limit) - position)

    def advance(self, position: int) -> None:
        """Everything before `position` is digested."""
        with self._lock:
            self._front = position

    def rewind(self, position: int) -> None:
        """Begin again at `position`, with nothing kept."""
        with self._lock:
            self._front = position
            for slot in self._slots:
                slot.cell = -1

    def _slot(self, position: int) -> _Slot:
        return self._slots[position // CELL_BYTES % CELLS]

    def _view(self, position: int, size: int) -> memoryview:
        start = position % (CELLS * CELL_BYTES)
        end = min(start + size, (start // CELL_BYTES + 1) * CELL_BYTES)
        return self._memory[start:end]
