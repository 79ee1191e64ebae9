"""Moving the shards: many connections write, one reader follows in order and checks.

Connections (`download`) receive segments of the shards in parallel and write each to its place in
the `buffer`. The main thread follows in order (`verify`) and feeds two digests: the shard's own,
which the Hub published, and the merged file's, which will name the blob. So the number of
connections does not touch the order of hashing, and memory stays small. A rerun starts from what
the journals claim (`progress`) and digests that too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dsollama.errors import CorruptShardError
from dsollama.events import BytesMoved, Listener, Noted, ShardVerified
from dsollama.transfer.buffer import Buffer
from dsollama.transfer.digests import Digests
from dsollama.transfer.download import Downloader
from dsollama.transfer.pace import Pace
from dsollama.transfer.padding import Padding
from dsollama.transfer.progress import Progress
from dsollama.transfer.region import Region, make_segments
from dsollama.transfer.shard import ShardSource
from dsollama.transfer.verify import Verifier

REPORT_SECONDS = 0.2
MAX_FETCHES = 2
"""How often a shard with wrong bytes is read before it is given up."""


@dataclass(frozen=True)
class TransferOptions:
    """How a transfer goes.

    Attributes:
        connections: how many, at most.
        max_ahead: how many bytes ahead of the digests a segment may be begun; None: no bound.
        on_verified: called in the calling thread for each region whose shard is right.
        padding: where the merged file's digest takes in zeros instead of a shard's bytes.
    """

    connections: int
    max_ahead: int | None = None
    on_verified: Callable[[Region], None] = lambda _region: None
    padding: Padding | None = None


class Transfer:
    """Fetches regions into their files and verifies them; a context manager, then `run`."""

    def __init__(
        self,
        regions: Sequence[Region],
        source: ShardSource,
        staging: Path,
        options: TransferOptions,
        listener: Listener,
    ) -> None:
        """Prepare; nothing moves before `run`.

        Args:
            regions: in the order of the merged file; a shard without tensors has none.
            source: gives the shards' bytes.
            staging: folder of the files and the journals.
            options: how it goes.
            listener: hears of progress, from the calling thread only.
        """
        self._regions = regions
        self._source = source
        self._options = options
        self._listener = listener
        self._reported = 0.0
        self._buffer = Buffer(regions)
        self._progress = Progress(make_segments(regions), staging, self._buffer.sync)
        pace = Pace(self._buffer, self._progress.stop, options.max_ahead)
        self._downloader = Downloader(regions, source, self._buffer, self._progress, pace)
        self._verifier = Verifier(regions, self._buffer, self._progress, pace, options.padding)

    def __enter__(self) -> Self:
        """Open the files and start the threads: of the journal, the digests, the connections.

        The connections last: for them fewer threads are enough, too.
        """
        self._buffer.open()
        try:
            self._progress.start()
            self._verifier.start()
            self._downloader.start(self._options.connections)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop the threads, make everything durable and leave a true journal."""
        self._downloader.end()
        self._verifier.end()
        try:
            self._progress.close()
        finally:
            self._buffer.close()

    @property
    def moved(self) -> int:
        """Bytes fetched by now."""
        return self._progress.moved

    def in_place(self) -> int:
        """Return the bytes in place."""
        return self._progress.in_place()

    def checkpoint(self) -> None:
        """Make what has arrived durable, and say so in the journal.

        Raises:
            StoreError: the disk refused.
        """
        self._progress.checkpoint()

    def run(self, whole: hashlib._Hash | None) -> Digests:
        """Wait for every region in order, verify it, and digest the merged file.

        Args:
            whole: digest of the merged file, fed from the first region to the end; None if there
                is no merged file.

        Raises:
            HubError: a download failed for good.
            CorruptShardError: a shard's bytes are not those that the Hub published.
            StoreError: the disk refused.
        """
        shards = []
        for index in range(len(self._regions)):
            found, whole = self._verified(index, whole)
            shards.append(found)
        self._report(self._regions[-1], final=True)
        merged = whole.hexdigest() if whole else None
        return Digests(tuple(shards), merged, self._verifier.prefixes(merged or shards[-1]))

    def _verified(
        self, index: int, whole: hashlib._Hash | None
    ) -> tuple[str, hashlib._Hash | None]:
        """Return the shard's digest and the merged file's after it; fetch again once if wrong.

        Raises:
            CorruptShardError: it stays wrong.
        """
        region, fetches = self._regions[index], 1
        while True:
            after = whole.copy() if whole else None
            found = self._verifier.digest(index, after, lambda: self._report(region))
            if region.shard.sha256 in {None, found}:
                break
            self._fetch_again(index, found, last=fetches == MAX_FETCHES)
            fetches += 1
        self._listener(ShardVerified(region.number, region.shards, found, region.shard.published))
        self._options.on_verified(region)
        return found, after

    def _fetch_again(self, index: int, found: str, *, last: bool) -> None:
        region = self._regions[index]
        self._progress.reset(index)
        remedy = None if last else self._source.reject(region.shard.path)
        if remedy is None:
            raise _wrong_digest(region, found)
        self._listener(Noted(remedy))
        self._buffer.rewind(region.start)
        self._progress.enqueue(index)

    def _report(self, region: Region, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            total, resumed = self._progress.total, self._progress.resumed
            kept = self._progress.in_place()
            self._listener(
                BytesMoved("download", kept, total, resumed, region.number, region.shards)
            )


def _wrong_digest(region: Region, found: str) -> CorruptShardError:
    shard = region.shard
    return CorruptShardError(
        f"Shard {region.number} of {region.shards} ({shard.path}) has the digest "
        f"{found[:12]}... and should have {str(shard.sha256)[:12]}...",
        "The other shards are kept. Run the same command again; if it stays, the upload "
        "itself is damaged."
        if shard.published
        else "That store's file is damaged: `dsollama verify --store` there tells more.",
    )
