"""SHA-256 of what arrives: two digests of the same bytes at once, while the next arrive."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from dsollama.limits import limit_error

BLOCK_BYTES = 64 * 2**20
"""Of the ledger's prefixes: what a repair fetches at least."""

READ_AHEAD = 4
"""Views that may wait for their digests."""


@dataclass(frozen=True)
class Digests:
    """The digests of a merged file and of its shards, in hex.

    Attributes:
        shards: of each shard that has bytes in the file.
        whole: of the merged file, if there is one.
        prefixes: of the first 1, 2, 3... blocks of BLOCK_BYTES of the merged file, or of the only
            file; the last is of all of it. Empty where they are not known.
    """

    shards: tuple[str, ...]
    whole: str | None
    prefixes: tuple[str, ...]


def rotating_buffers(size: int) -> Iterator[memoryview]:
    """Yield buffers of `size` bytes, without end.

    One comes again only when a `DigestPipeline` that was fed with each of them has taken it in.
    """
    return itertools.cycle([memoryview(bytearray(size)) for _ in range(READ_AHEAD + 1)])


class DigestPipeline:
    """Feeds views to two digests at once, each in its own thread, in order."""

    def __init__(self) -> None:
        """Prepare."""
        self._pools = [ThreadPoolExecutor(1) for _ in range(2)]
        self._waiting: deque[tuple[list[Future[None]], Callable[[], None]]] = deque()

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
