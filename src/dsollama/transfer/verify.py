"""Following the bytes in order, and digesting them: each shard, and the merged file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dsollama.transfer.buffer import Buffer
from dsollama.transfer.digests import BLOCK_BYTES, DigestPipeline
from dsollama.transfer.pace import Pace
from dsollama.transfer.padding import Padding
from dsollama.transfer.progress import Progress
from dsollama.transfer.region import CELL_BYTES, Region


class Verifier:
    """Digests regions as they arrive, and keeps the digests of the file's first blocks."""

    def __init__(
        self,
        regions: Sequence[Region],
        buffer: Buffer,
        progress: Progress,
        pace: Pace,
        padding: Padding | None,
    ) -> None:
        """Prepare; `start` starts the threads.

        Args:
            regions: all of the transfer.
            buffer: has the bytes.
            progress: says which have arrived.
            pace: learns whether the digests are busy.
            padding: where the merged file's digest takes in zeros instead of a shard's bytes.
        """
        self._regions = regions
        self._buffer = buffer
        self._progress = progress
        self._pace = pace
        self._padding = padding
        self._pipeline = DigestPipeline()
        self._prefixes: dict[int, str] = {}

    def start(self) -> None:
        """Start the threads of the digests.

        Raises:
            LimitError: the system starts no more.
        """
        self._pipeline.start()

    def end(self) -> None:
        """Wait for the threads and end them."""
        self._pipeline.end()

    def digest(self, index: int, whole: hashlib._Hash | None, looked: Callable[[], None]) -> str:
        """Digest a region as it arrives.

        Args:
            index: of the region.
            whole: digest of the merged file, fed up to this region; takes in the region and the
                padding behind it. None if there is no merged file.
            looked: called a few times a second, or more often.

        Returns:
            The digest of the region's shard, in hex.

        Raises:
            DsollamaError: what made a connection or the journal fail.
            StoreError: the disk refused.
        """
        region = self._regions[index]
        own = hashlib.sha256(region.head)
        digests = [own] if whole is None else [own, whole]
        at = region.start
        self._buffer.release(at)
        for end in self._arrived(index, looked):
            while at < end:
                view = self._buffer.view(at, end)
                merged = None if whole is None else self._padded(region.in_file(at), view)
                at += len(view)
                self._pipeline.feed(digests, view, partial(self._buffer.release, at), merged)
                self._mark(region.in_file(at), digests)
        self._pipeline.finish()
        if whole is not None:
            self._digest_padding(region, whole)
        return own.hexdigest()

    def prefixes(self, last: str) -> tuple[str, ...]:
        """Return the digests of the file's first 1, 2, 3... blocks.

        Args:
            last: the digest of all of it.

        Returns:
            None at all where there are several files, or where one is not known, as under a header
            that is longer than a block.
        """
        if self._regions[0].file != self._regions[-1].file:
            return ()
        ends = range(BLOCK_BYTES, self._size, BLOCK_BYTES)
        if list(ends) != sorted(self._prefixes):
            return ()
        return (*(self._prefixes[end] for end in ends), last)

    @property
    def _size(self) -> int:
        """Bytes of the last file, which is the merged one if there is one."""
        last = self._regions[-1]
        return last.in_file(last.padded_end)

    def _arrived(self, index: int, looked: Callable[[], None]) -> Iterator[int]:
        """Yield how far a region is in place without a gap, as a position."""
        for number, segment in enumerate(self._progress.segments):
            if segment.region != index:
                continue
            done = 0
            while done < segment.size:
                with self._pace.digests_idle():
                    arrived = self._progress.wait(number, done, CELL_BYTES)
                looked()
                if arrived > done:
                    done = arrived
                    yield segment.start + done

    def _padded(self, offset: int, view: memoryview) -> memoryview | None:
        return self._padding.zeroed(offset, view) if self._padding else None

    def _mark(self, size: int, digests: Sequence[hashlib._Hash]) -> None:
        """At a block's end, keep the digest of the file's first `size` bytes."""
        if size % BLOCK_BYTES == 0 and size < self._size:

            def keep(prefix: str) -> None:
                self._prefixes[size] = prefix

            self._pipeline.mark(len(digests) - 1, digests[-1], keep)

    def _digest_padding(self, region: Region, whole: hashlib._Hash) -> None:
        """Digest the zeros between this region and the next, at most 31."""
        if region.padding:
            whole.update(bytes(region.padding))
            size = region.in_file(region.padded_end)
            if size % BLOCK_BYTES == 0 and size < self._size:
                self._prefixes[size] = whole.copy().hexdigest()
