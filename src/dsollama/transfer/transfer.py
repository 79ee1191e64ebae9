"""Moving the shards: many connections write, one reader follows in order and checks.

Connections (`fetch`) receive segments of the shards in parallel and write them to their place. The
main thread follows in order and feeds two digests, the shard's own, which the Hub published, and
the merged file's, which will name the blob. What was received just ahead of it is still in memory
(`window`); the rest it reads back. So the number of connections does not touch the order of
hashing and memory stays small. A rerun starts from the journal's claims and digests them too.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from dsollama.errors import CorruptShardError
from dsollama.events import BytesMoved, Listener, Noted, ShardVerified
from dsollama.limits import start_thread
from dsollama.sources.local import ShardReader
from dsollama.transfer.arrivals import Arrivals
from dsollama.transfer.fetch import Fetch
from dsollama.transfer.hashing import Hashing
from dsollama.transfer.journal import clear_claims, end_progress, read_claims, write_claims
from dsollama.transfer.padding import Padding
from dsollama.transfer.segments import CELL_BYTES, Job, make_segments
from dsollama.transfer.staged import StagedFile
from dsollama.transfer.window import Window

BLOCK_BYTES = 64 * 2**20
"""Of the ledger's prefixes: what a repair fetches at least."""

SYNC_SECONDS = 1.0
"""Pause between two makings durable: what a power loss costs at most."""

REPORT_SECONDS = 0.2
MAX_FETCHES = 2
"""How often a shard with wrong bytes is read before it is given up."""


@dataclass(frozen=True)
class Digests:
    """What a transfer found, in hex.

    Attributes:
        shards: each job's shard.
        whole: the merged file, if there is one.
        prefixes: of the first 1, 2, 3... blocks of BLOCK_BYTES of the merged file, or of the only
            file; the last is of all of it. Empty where they are not known.
    """

    shards: tuple[str, ...]
    whole: str | None
    prefixes: tuple[str, ...]


class Transfer:
    """Fetches jobs into their files and verifies them; use as a context manager, then `run`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        shards: int,
        reader: ShardReader,
        staging: Path,
        connections: int,
        listener: Listener,
        verified: Callable[[Job], None] = lambda _job: None,
        reach: int | None = None,
        padding: Padding | None = None,
    ) -> None:
        """Prepare; nothing moves before `run`.

        Args:
            jobs: in the order of the merged file.
            shards: how many shards the model has; one without tensors has no job.
            reader: reads the shards.
            staging: folder of the files and the journal.
            connections: parallel connections.
            listener: hears of progress, from the calling thread only.
            verified: called in that thread for each job whose shard is right.
            reach: how many bytes ahead of the digests a segment may be begun; None: no bound.
            padding: where the merged file's digest takes in zeros instead of a shard's bytes.
        """
        self._reach = reach
        self._padding = padding
        self._verified_job = verified
        self._jobs = jobs
        self._shards = shards
        self._reader = reader
        self._staging = staging
        self._connections = connections
        self._listener = listener
        segments = make_segments(jobs)
        claims = read_claims(staging, [segment.size for segment in segments])
        self._arrivals = Arrivals(segments, claims)
        self._window = Window()
        self._files: dict[Path, StagedFile] = {}
        self._prefixes: dict[int, str] = {}
        self._reported = 0.0
        self._claiming = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._hashing = Hashing(CELL_BYTES)

    @property
    def moved(self) -> int:
        """Bytes fetched by now."""
        return self._arrivals.moved

    def __enter__(self) -> Self:
        """Open the files and start the threads: of the journal, the digests, the connections.

        The connections last: for them fewer threads are enough, too.
        """
        for job in self._jobs:
            if job.file not in self._files:
                self._files[job.file] = StagedFile(job.file)
        self._fetch = Fetch(
            self._jobs,
            self._arrivals,
            self._files,
            self._window,
            self._reader,
            self._staging,
            self._reach,
        )
        try:
            self._threads = [start_thread(self._keep_journal)]
            self._hashing.start()
            self._fetch.start(self._connections)
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
        self._fetch.end()
        for thread in self._threads:
            thread.join()
        self._hashing.end()
        try:
            self.checkpoint()
            end_progress(self._staging)  # it may claim what was forgotten since
        finally:
            for file in self._files.values():
                file.close()

    def kept(self) -> int:
        """Return the bytes in place."""
        return self._arrivals.kept()

    def run(self, whole: hashlib._Hash | None) -> Digests:
        """Wait for every job in order, verify it, and digest the merged file.

        Args:
            whole: digest of the merged file, fed from the first piece to the end; None if there
                is no merged file.

        Raises:
            HubError: a download failed for good.
            CorruptShardError: a shard's bytes are not those that the Hub published.
            StoreError: the disk refused.
        """
        shards = []
        for index in range(len(self._jobs)):
            found, whole = self._verified(index, whole, self._hashing)
            shards.append(found)
        self._report(len(self._jobs) - 1, final=True)
        merged = whole.hexdigest() if whole else None
        return Digests(tuple(shards), merged, self._all_prefixes(merged or shards[-1]))

    def _verified(
        self, index: int, whole: hashlib._Hash | None, hashing: Hashing
    ) -> tuple[str, hashlib._Hash | None]:
        """Return the shard's digest and the merged file's after it; fetch again once if wrong."""
        for again in range(MAX_FETCHES - 1, -1, -1):
            after = whole.copy() if whole else None
            found = self._digest(index, after, hashing)
            if self._accept(index, found, again=again > 0):
                break
        return found, after

    def _accept(self, index: int, found: str, *, again: bool) -> bool:
        job = self._jobs[index]
        shard, number = job.shard, job.piece.shard + 1
        if shard.sha256 in {None, found}:
            self._listener(ShardVerified(number, self._shards, found, shard.published))
            self._verified_job(job)
            return True
        self._arrivals.forget(index)
        instead = self._reader.instead(shard.path) if again else None
        if instead is None:
            raise CorruptShardError(
                f"Shard {number} of {self._shards} ({shard.path}) has the digest "
                f"{found[:12]}... and should have {str(shard.sha256)[:12]}...",
                "The other shards are kept. Run the same command again; if it stays, the upload "
                "itself is damaged."
                if shard.published
                else "That store's file is damaged: `dsollama verify --store` there tells more.",
            )
        self._listener(Noted(instead))
        self._window.rewind(job.origin + job.piece.target)
        self._arrivals.requeue(index)
        return False

    def _digest(self, index: int, whole: hashlib._Hash | None, hashing: Hashing) -> str:
        """Digest job `index` as it arrives and return its shard's digest."""
        job = self._jobs[index]
        own = hashlib.sha256(job.head)
        digests = [own] if whole is None else [own, whole]
        at = job.piece.target
        self._window.advance(job.origin + at)
        for end in self._arrived(index):
            while at < end:
                start, view = at, self._bytes(job, at, end, hashing)
                at += len(view)
                merged = self._padding.zeroed(start, view) if whole and self._padding else None
                then = partial(self._window.advance, job.origin + at)
                hashing.feed(digests, view, then, merged)
                if at % BLOCK_BYTES == 0:
                    self._mark(at, digests, hashing)
        hashing.finish()
        if whole is not None:
            self._pad(job, whole)
        return own.hexdigest()

    def _mark(self, at: int, digests: Sequence[hashlib._Hash], hashing: Hashing) -> None:
        """Keep the digest of the file's first `at` bytes."""
        if at < self._jobs[-1].until:

            def keep(prefix: str) -> None:
                self._prefixes[at] = prefix

            hashing.mark(len(digests) - 1, digests[-1], keep)

    def _all_prefixes(self, last: str) -> tuple[str, ...]:
        """Return the prefixes; none if one is unknown, as under a header longer than a block."""
        ends = range(BLOCK_BYTES, self._jobs[-1].until, BLOCK_BYTES)
        if list(ends) != sorted(self._prefixes):
            return ()
        return (*(self._prefixes[end] for end in ends), last)

    def _bytes(self, job: Job, at: int, end: int, hashing: Hashing) -> memoryview:
        """Return bytes of a job's file from `at` to at most `end`, from memory if it has them."""
        end = min(end, (at // CELL_BYTES + 1) * CELL_BYTES)
        kept = self._window.get(job.origin + at, job.origin + end)
        if kept is not None:
            return kept
        view = hashing.buffer()[: end - at]
        self._files[job.file].read(view, at)
        return view

    def _arrived(self, index: int) -> Iterator[int]:
        """Yield how far job `index` is in place without a gap, as an offset in its file."""
        for number, segment in enumerate(self._arrivals.segments):
            if segment.job != index:
                continue
            done = 0
            while done < segment.size:
                self._fetch.digesting = False
                arrived = self._arrivals.wait(number, done, CELL_BYTES)
                self._fetch.digesting = True
                self._report(index)
                if arrived > done:
                    done = arrived
                    yield segment.target + done

    def _pad(self, job: Job, whole: hashlib._Hash) -> None:
        """Digest the zeros between this piece and the next, at most 31."""
        if job.until > job.end:
            whole.update(bytes(job.until - job.end))
            if job.until % BLOCK_BYTES == 0 and job is not self._jobs[-1]:
                self._prefixes[job.until] = whole.copy().hexdigest()

    def _report(self, index: int, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            number = self._jobs[index].piece.shard + 1
            total, resumed = self._arrivals.total, self._arrivals.resumed
            self._listener(
                BytesMoved("download", self.kept(), total, resumed, number, self._shards)
            )

    def _keep_journal(self) -> None:
        try:
            while not self._arrivals.stop.wait(SYNC_SECONDS):
                self.checkpoint()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._arrivals.fail(error)

    def checkpoint(self) -> None:
        """Make what has arrived durable, then claim it.

        Raises:
            StoreError: the disk refused.
        """
        claims = self._arrivals.claims()
        if not claims:
            clear_claims(self._staging)
            return
        for file in self._files.values():
            file.sync()
        with self._claiming:
            write_claims(self._staging, claims)
