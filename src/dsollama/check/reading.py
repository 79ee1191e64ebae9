"""Reading a blob from one end to the other: ahead of its digest, and leaving no page cache."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Self

PIECE_BYTES = 4 * 2**20
"""On 2 cores 1.5 GB/s with the next piece read ahead, 1.3 without, where SHA-256 alone has 1.7."""

MAX_HOLES = 64 * 2**30
"""Bytes of a blob that were never written and are digested all the same. No real weights have a
run of zeros that long; a file of nothing else could be 8 EiB, which would take 170 years."""

_MAX_STEPS = 4096


class BlobReader:
    """Feeds ranges of an open file to digests; use as a context manager."""

    def __init__(self, file: BinaryIO, moved: Callable[[int], None]) -> None:
        """Read from `file`; `moved` hears how many bytes were digested."""
        self._handle = file.fileno()
        self._moved = moved
        self._pool = ThreadPoolExecutor(1)
        self._buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(2)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def feed(self, digest: hashlib._Hash, start: int, end: int) -> None:
        """Let `digest` take in bytes `start` to `end` (exclusive), or to where the file ends.

        Raises:
            OSError: the disk does not give them.
        """
        at, turn = start, 0
        ahead = self._pool.submit(self._read, turn, at, end)
        while count := ahead.result():
            piece = self._buffers[turn][:count]
            turn = 1 - turn
            ahead = self._pool.submit(self._read, turn, at + count, end)
            digest.update(piece)
            drop_cache(self._handle, at, count)
            at += count
            self._moved(count)

    def _read(self, turn: int, start: int, end: int) -> int:
        size = max(0, min(PIECE_BYTES, end - start))
        return os.preadv(self._handle, [self._buffers[turn][:size]], start) if size else 0


def written_bytes(handle: int, size: int) -> int:
    """Return how many of a file's `size` bytes were ever written; the others are zeros.

    Where the file system cannot tell, all were; behind _MAX_STEPS holes, all the rest.
    """
    written = at = 0
    for _ in range(_MAX_STEPS):
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
            at = min(os.lseek(handle, start, os.SEEK_HOLE), size)
        except OSError as error:
            return written if error.errno == errno.ENXIO else written + size - at
        written += at - start
        if at >= size:
            return written
    return written + size - at


def drop_cache(handle: int, start: int, size: int) -> None:
    """Tell the kernel that these bytes will not be read again soon, where it can be told.

    A check of 251 GB would else push everything out of the page cache, a loaded model included.
    Pages that somebody has mapped stay.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, start, size, os.POSIX_FADV_DONTNEED)
