"""Moving the shards: many connections write, one reader follows in order and checks.

Segments of the shards are fetched in parallel and written straight to their place. The main
thread follows: it reads the file back in order (from the page cache) and feeds two digests, the
shard's own, which the Hub published, and the merged file's, which will name the blob. So the
number of connections does not touch the order of hashing, memory stays small, and what is
digested is what the disk was given. A rerun starts from the journal's claims and hashes them too.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dsollama.errors import CorruptShardError
from dsollama.events import BytesMoved, Listener, Noted, ShardVerified
from dsollama.gguf.merge import Piece
from dsollama.hub.ranges import RangeReader
from dsollama.install.hashing import READ_BACK_BYTES, Hashing
from dsollama.install.journal import clear_claims, read_claims, write_claims
from dsollama.install.plan import PlannedShard
from dsollama.store.files import store_failures

MIN_SEGMENT, MAX_SEGMENT = 8 * 2**20, 64 * 2**20
"""Bytes of a segment: small enough that the reader behind does not wait long for the first one,
large enough that a request more costs nothing against a CDN's 30-100 MB/s a connection."""

SEGMENTS = 512
"""How many segments a transfer is cut into, within those bounds."""

WRITE_BYTES = 2**17
"""Bytes of one write. Larger ones make ext4 on Linux 6.18 look for large folios, which cost six
times the CPU where the kernel has to fetch fresh memory first (measured: 2.6 GB in writes of
128 KiB 0.5-0.7 s, of 1 MiB 2.1-3.7 s)."""

SYNC_SECONDS = 1.0
"""Pause between two makings durable: what a crash loses at most, and what keeps the disk busy from
the start, so that the end does not wait for gigabytes of dirty pages (measured: `make bench`)."""

REPORT_SECONDS = 0.2
FIRST_CONNECTIONS = 2
RAMP_SECONDS = 1.0
"""Connections begin with two and become one more a second: a fast, near Hub needs no more than
two (more only cost CPU), a CDN's 30-100 MB/s each are added up within seconds."""

MAX_FETCHES = 2
"""How often a shard with wrong bytes is fetched before it is given up."""


@dataclass(frozen=True)
class Job:
    """One shard's run of bytes and where it goes.

    Attributes:
        shard: what is fetched.
        piece: which bytes of it, and their place in `file`.
        file: the staging file.
        head: the shard's bytes before the piece, which are known already; they count for its
            digest.
        until: where the next job's piece begins in `file`; the bytes between are zero padding.
    """

    shard: PlannedShard
    piece: Piece
    file: Path
    head: bytes
    until: int


@dataclass(frozen=True)
class Digests:
    """What a transfer found, in hex: each job's shard, and the merged file if there is one."""

    shards: tuple[str, ...]
    whole: str | None


@dataclass(frozen=True)
class Segment:
    """A part of a job that one connection fetches: offset in the piece and bytes."""

    job: int
    start: int
    size: int


def make_segments(jobs: Sequence[Job]) -> list[Segment]:
    """Cut jobs into segments, in order; the same jobs are always cut alike, for the journal."""
    total = sum(job.piece.size for job in jobs)
    size = min(max(total // SEGMENTS, MIN_SEGMENT), MAX_SEGMENT)
    return [
        Segment(index, start, min(size, job.piece.size - start))
        for index, job in enumerate(jobs)
        for start in range(0, job.piece.size, size)
    ]


class Transfer:
    """Fetches jobs into their files and verifies them; use as a context manager, then `run`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        shards: int,
        reader: RangeReader,
        staging: Path,
        connections: int,
        listener: Listener,
    ) -> None:
        """Prepare; nothing moves before `run`.

        Args:
            jobs: in the order of the merged file.
            shards: how many shards the model has; one without tensors has no job.
            reader: reads the repository.
            staging: folder of the files and the journal.
            connections: parallel connections.
            listener: hears of progress, from the calling thread only.
        """
        self._jobs = jobs
        self._shards = shards
        self._reader = reader
        self._staging = staging
        self._connections = connections
        self._listener = listener
        self._segments = make_segments(jobs)
        self._done = [0] * len(self._segments)
        for number, claim in read_claims(staging, [s.size for s in self._segments]).items():
            self._done[number] = claim
        self.resumed = sum(self._done)
        self.moved = 0
        self._queue = deque(
            number for number, segment in enumerate(self._segments) if self._left(number)
        )
        # Two conditions, so that bytes that arrived wake their reader and no idle connection.
        self._changed = threading.Condition()
        self._queued = threading.Condition()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._handles: dict[Path, int] = {}
        # Writers of one file would spin on its inode's lock in the kernel; here they sleep.
        self._writing = threading.Lock()
        self._reported = 0.0

    def __enter__(self) -> Self:
        """Open the files and start the connections and the syncing of the journal."""
        with store_failures(self._staging):
            for job in self._jobs:
                if job.file not in self._handles:
                    self._handles[job.file] = os.open(job.file, os.O_RDWR | os.O_CREAT, 0o644)
        count = min(self._connections, max(len(self._queue), 1))
        self._workers = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(count)
        ]
        self._workers.append(threading.Thread(target=self._keep_journal, daemon=True))
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop the threads, make everything durable and leave a true journal."""
        self._stop.set()
        self._reader.cancel()
        with self._queued:
            self._queued.notify_all()
        for worker in self._workers:
            worker.join()
        try:
            self._checkpoint()
        finally:
            for handle in self._handles.values():
                os.close(handle)

    def kept(self) -> int:
        """Return the bytes in place."""
        return sum(self._done)

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
        with Hashing() as hashing:
            for index in range(len(self._jobs)):
                found, whole = self._verified(index, whole, hashing)
                shards.append(found)
        self._report(len(self._jobs) - 1, final=True)
        return Digests(tuple(shards), whole.hexdigest() if whole else None)

    def _verified(
        self, index: int, whole: hashlib._Hash | None, hashing: Hashing
    ) -> tuple[str, hashlib._Hash | None]:
        """Return the shard's digest and the merged file's after it; fetch again once if wrong."""
        for fetch in range(1, MAX_FETCHES + 1):
            after = whole.copy() if whole else None
            found = self._digest(index, after, hashing)
            if self._accept(index, found, last=fetch == MAX_FETCHES):
                break
        return found, after

    def _accept(self, index: int, found: str, *, last: bool) -> bool:
        shard, number = self._jobs[index].shard, self._jobs[index].piece.shard + 1
        if shard.sha256 in {None, found}:
            self._listener(ShardVerified(number, self._shards, found))
            return True
        self._forget(index)
        if last:
            raise CorruptShardError(
                f"Shard {number} of {self._shards} ({shard.path}) has the digest "
                f"{found[:12]}... and the Hub published {str(shard.sha256)[:12]}...",
                "The other shards are kept. Run the same command again; if it stays, the upload "
                "itself is damaged.",
            )
        self._listener(Noted(f"{shard.path}: its bytes are wrong; fetching this shard again"))
        self._requeue(index)
        return False

    def _digest(self, index: int, whole: hashlib._Hash | None, hashing: Hashing) -> str:
        """Read job `index` back as it arrives and return its shard's digest."""
        job = self._jobs[index]
        own = hashlib.sha256(job.head)
        digests = [own] if whole is None else [own, whole]
        handle = self._handles[job.file]
        at = job.piece.target
        for stop in self._arrivals(index):
            while at < stop:
                view = hashing.buffer()[: min(READ_BACK_BYTES, stop - at)]
                at += _read_exactly(handle, view, at)
                hashing.feed(digests, view)
        hashing.finish()
        padding = job.until - job.piece.target - job.piece.size
        if whole is not None and padding:
            whole.update(bytes(padding))
        return own.hexdigest()

    def _arrivals(self, index: int) -> Iterator[int]:
        """Yield how far job `index` is in place without a gap, as an offset in its file."""
        job = self._jobs[index]
        numbers = [n for n, segment in enumerate(self._segments) if segment.job == index]
        yielded = job.piece.target
        for number in numbers:
            segment = self._segments[number]
            start = job.piece.target + segment.start
            while yielded < start + segment.size:
                with self._changed:
                    arrived = start + self._done[number]
                    full = arrived == start + segment.size
                    if arrived - yielded < READ_BACK_BYTES and not full:
                        self._changed.wait(REPORT_SECONDS)
                        arrived = start + self._done[number]
                if self._failure is not None:
                    raise self._failure
                self._report(index)
                if arrived > yielded:
                    yielded = arrived
                    yield yielded

    def _report(self, index: int, *, final: bool = False) -> None:
        now = time.monotonic()
        if final or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            total = sum(segment.size for segment in self._segments)
            number = self._jobs[index].piece.shard + 1
            self._listener(
                BytesMoved("download", self.kept(), total, self.resumed, number, self._shards)
            )

    def _work(self, number: int) -> None:
        """Fetch segments until there are none; the first failure stops all."""
        try:
            self._stop.wait(max(number - FIRST_CONNECTIONS + 1, 0) * RAMP_SECONDS)
            while not self._stop.is_set():
                with self._queued:
                    segment = self._queue.popleft() if self._queue else None
                    if segment is None:
                        # A corrupt shard may be queued again until everything is verified.
                        self._queued.wait(REPORT_SECONDS)
                        continue
                self._fetch(segment)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._fail(error)

    def _fetch(self, number: int) -> None:
        segment = self._segments[number]
        job = self._jobs[segment.job]
        handle = self._handles[job.file]
        first = segment.start + self._done[number]
        at = job.piece.target + first
        chunks = self._reader.stream(
            job.shard.path,
            job.piece.source + first,
            job.piece.source + segment.start + segment.size,
            job.shard.size,
        )
        for chunk in chunks:
            with self._writing, store_failures(job.file):
                _write_exactly(handle, chunk, at)
            at += len(chunk)
            with self._changed:
                self._done[number] += len(chunk)
                self.moved += len(chunk)
                self._changed.notify()
            if self._stop.is_set():
                return

    def _left(self, number: int) -> int:
        return self._segments[number].size - self._done[number]

    def _forget(self, index: int) -> None:
        with self._changed:
            for number, segment in enumerate(self._segments):
                if segment.job == index:
                    self._done[number] = 0

    def _requeue(self, index: int) -> None:
        with self._queued:
            numbers = [n for n, segment in enumerate(self._segments) if segment.job == index]
            self._queue.extendleft(reversed(numbers))
            self._queued.notify_all()

    def _keep_journal(self) -> None:
        try:
            while not self._stop.wait(SYNC_SECONDS):
                self._checkpoint()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._stop.set()
            self._changed.notify_all()

    def _checkpoint(self) -> None:
        """Make what has arrived durable, then claim it."""
        claims = {number: done for number, done in enumerate(self._done) if done}
        if not claims:
            clear_claims(self._staging)
            return
        with store_failures(self._staging):
            for handle in self._handles.values():
                os.fdatasync(handle)
        write_claims(self._staging, claims)


def make_jobs(
    shards: Sequence[PlannedShard],
    pieces: Sequence[Piece],
    files: Mapping[int, Path],
    heads: Mapping[int, bytes],
    size: int,
) -> list[Job]:
    """Return one job per shard that has bytes to fetch.

    Args:
        shards: all shards.
        pieces: their pieces, in the order of the merged file.
        files: staging file by shard index.
        heads: the bytes before each shard's piece.
        size: bytes of the merged file; the last job is padded up to there if it lies in it.
    """
    jobs = []
    for number, piece in enumerate(pieces):
        following = pieces[number + 1].target if number + 1 < len(pieces) else size
        until = max(following, piece.target + piece.size)
        jobs.append(Job(shards[piece.shard], piece, files[piece.shard], heads[piece.shard], until))
    return jobs


def _read_exactly(handle: int, view: memoryview, offset: int) -> int:
    filled = 0
    while filled < len(view):
        count = os.preadv(handle, [view[filled:]], offset + filled)
        if count == 0:
            raise CorruptShardError("The staging file became shorter while it was read.")
        filled += count
    return filled


def _write_exactly(handle: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view[:WRITE_BYTES], offset)
        view, offset = view[count:], offset + count
