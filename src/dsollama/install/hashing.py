"""Two digests of the same bytes at once, while the next are read."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

READ_BACK_BYTES = 2 * 2**20
READ_AHEAD = 4
"""Blocks of READ_BACK_BYTES that may wait for their digests."""


class Hashing:
    """Feeds blocks to two digests at once, each in its own thread, while the next is read."""

    def __init__(self) -> None:
        self._pools = [ThreadPoolExecutor(1) for _ in range(2)]
        self._buffers = [memoryview(bytearray(READ_BACK_BYTES)) for _ in range(READ_AHEAD)]
        self._waiting: deque[list[Future[None]]] = deque()
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown()

    def buffer(self) -> memoryview:
        """Return a buffer that no digest is reading any more."""
        if len(self._waiting) == READ_AHEAD:
            for future in self._waiting.popleft():
                future.result()
        self._next = (self._next + 1) % READ_AHEAD
        return self._buffers[self._next]

    def feed(self, digests: Sequence[hashlib._Hash], view: memoryview) -> None:
        """Let every digest take in `view`, each after what it was fed before."""
        self._waiting.append(
            [
                pool.submit(digest.update, view)
                for pool, digest in zip(self._pools, digests, strict=False)
            ]
        )

    def finish(self) -> None:
        """Wait until the digests have taken in everything."""
        while self._waiting:
            for future in self._waiting.popleft():
                future.result()
