"""Two digests of the same bytes at once, while the next arrive."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from dsollama.limits import limit_error

READ_AHEAD = 4
"""Blocks that may wait for their digests."""


class Hashing:
    """Feeds blocks to two digests at once, each in its own thread, in order."""

    def __init__(self, block: int) -> None:
        """Prepare; `block` is the size of `buffer`'s buffers in bytes."""
        self._pools = [ThreadPoolExecutor(1) for _ in range(2)]
        self._buffers = [memoryview(bytearray(block)) for _ in range(READ_AHEAD + 1)]
        self._waiting: deque[tuple[list[Future[None]], Callable[[], None]]] = deque()
        self._next = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start the threads now, while there is nothing to lose.

        Raises:
            LimitError: the system starts no more.
        """
        for pool in self._pools:
            try:
                pool.submit(int).result()
            except RuntimeError as error:
                raise limit_error(error) or error from error

    def end(self) -> None:
        """Wait for the threads and end them."""
        for pool in self._pools:
            pool.shutdown()

    def buffer(self) -> memoryview:
        """Return a buffer that no digest is reading any more."""
        self._next = (self._next + 1) % len(self._buffers)
        return self._buffers[self._next]

    def feed(
        self,
        digests: Sequence[hashlib._Hash],
        view: memoryview,
        then: Callable[[], None],
        last: memoryview | None = None,
    ) -> None:
        """Let every digest take in `view`, each after what it was fed before.

        Args:
            digests: at most two.
            view: for all of them.
            then: called in this thread, by a later call, when all have.
            last: what the last one takes in instead.
        """
        views = [view] * (len(digests) - 1) + [view if last is None else last]
        futures = [
            pool.submit(digest.update, each)
            for pool, digest, each in zip(self._pools, digests, views, strict=False)
        ]
        self._waiting.append((futures, then))
        self._finish(READ_AHEAD)

    def mark(self, number: int, digest: hashlib._Hash, kept: Callable[[str], None]) -> None:
        """Give `kept` the digest's value after all that it was fed so far, from its thread."""
        self._pools[number].submit(lambda: kept(digest.copy().hexdigest()))

    def finish(self) -> None:
        """Wait until the digests have taken in everything."""
        self._finish(0)

    def _finish(self, left: int) -> None:
        while len(self._waiting) > left:
            futures, then = self._waiting.popleft()
            for future in futures:
                future.result()
            then()
