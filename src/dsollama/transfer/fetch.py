"""Connections: each fetches one segment after another and writes it to its place."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsollama.errors import DsollamaError, LimitError
from dsollama.hub.ranges import Stream
from dsollama.limits import limit_error, most_connections, start_thread
from dsollama.sources.local import ShardReader
from dsollama.transfer.arrivals import Arrivals
from dsollama.transfer.journal import write_progress
from dsollama.transfer.segments import CELL_BYTES, Job, Segment
from dsollama.transfer.staged import StagedFile
from dsollama.transfer.window import CELLS, Window

FIRST_CONNECTIONS = 2
RAMP_SECONDS = 1.0
"""Connections begin with two and become one more a second while the digests keep up: a fast, near
Hub needs no more than two, a CDN's 30-100 MB/s each are added up within seconds."""

WAITING_BYTES = 4 * CELLS * CELL_BYTES
"""How far ahead of busy digests a connection waits for them, instead of filling the page cache
with what would have to be read back. Who is further ahead than that does not wait."""

POLL_SECONDS = 0.004
FLUSH_SECONDS = 1.0
"""A slow connection writes at least this often."""

PROGRESS_BYTES = 16 * 2**20
"""What a killed process loses at most, besides a cell a connection."""


class Fetch:
    """The connections of one transfer."""

    def __init__(
        self,
        jobs: Sequence[Job],
        arrivals: Arrivals,
        files: Mapping[Path, StagedFile],
        window: Window,
        reader: ShardReader,
        staging: Path,
        reach: int | None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            jobs: what is fetched.
            arrivals: what is in place.
            files: the open staging files.
            window: takes what the digests come to next.
            reader: reads the shards.
            staging: folder of the journal.
            reach: bytes ahead of the digests beyond which no segment is begun; None: no bound.
        """
        self._reach = reach
        self._jobs = jobs
        self._arrivals = arrivals
        self._files = files
        self._window = window
        self._reader = reader
        self._staging = staging
        self._threads: list[threading.Thread] = []
        self._claiming = threading.Lock()
        self._unclaimed = 0
        self._counting = threading.Lock()
        self._working = 0
        self._held_back = False
        self.digesting = False
        """Whether the digests have something to do, rather than waiting for bytes."""

    def start(self, connections: int) -> None:
        """Start the connections, some of them later; where a limit is met, fewer.

        Raises:
            LimitError: not even one can be started.
        """
        for number in range(min(most_connections(connections), max(self._arrivals.waiting, 1))):
            with self._counting:
                self._working += 1
            try:
                self._threads.append(start_thread(self._work, number))
            except LimitError:
                with self._counting:
                    self._working -= 1
                if not self._threads:
                    raise
                return

    def end(self) -> None:
        """Stop all connections and wait for them."""
        self._arrivals.end()
        self._reader.cancel()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """Fetch segments until the end; the first failure stops all.

        A limit that is met while others still work ends this connection alone.
        """
        segment = None
        try:
            self._wait_for_turn(number)
            while not self._arrivals.stop.is_set():
                segment = self._arrivals.next_segment(self._may_begin)
                if segment is not None:
                    self._fetch(segment)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            if segment is None or not limit_error(error) or not self._leave():
                self._arrivals.fail(error)
            else:
                self._arrivals.give_back(segment)

    def _leave(self) -> bool:
        """Leave the work to the others, if there are any."""
        with self._counting:
            self._working -= 1
            return self._working > 0

    def _may_begin(self, segment: Segment) -> bool:
        position = self._jobs[segment.job].origin + segment.target
        return self._reach is None or position <= self._window.front + self._reach

    def _wait_for_turn(self, number: int) -> None:
        for _ in range(number - FIRST_CONNECTIONS + 1):
            self._arrivals.stop.wait(RAMP_SECONDS)
            while self._held_back and not self._arrivals.stop.is_set():
                self._held_back = False
                self._arrivals.stop.wait(RAMP_SECONDS)

    def _fetch(self, number: int) -> None:
        segment = self._arrivals.segments[number]
        job = self._jobs[segment.job]
        at = segment.target + self._arrivals.done[number]
        shift = job.piece.source - job.piece.target
        spare = memoryview(b"")
        with self._reader.open(
            job.shard.path, at + shift, segment.end + shift, job.shard.size
        ) as stream:
            while at < segment.end and not self._arrivals.stop.is_set():
                self._wait_for_digests(job.origin + at)
                room = self._window.take(job.origin + at)
                if room is None and not spare:
                    spare = memoryview(bytearray(CELL_BYTES))
                size = min(CELL_BYTES - at % CELL_BYTES, segment.end - at)
                into = (spare if room is None else room)[:size]
                filled, failure = self._fill(stream, into)
                file = self._files[job.file]
                file.write(into[:filled], at, direct=room is not None)
                if room is not None:
                    self._window.put(job.origin + at, filled)
                self._claim(number, filled)
                at += filled
                if failure is not None:
                    raise failure

    def _fill(self, stream: Stream, room: memoryview) -> tuple[int, DsollamaError | None]:
        """Return how much of `room` was filled, and what ended the stream."""
        began, filled = time.monotonic(), 0
        try:
            while filled < len(room) and time.monotonic() - began < FLUSH_SECONDS:
                filled += stream.readinto(room[filled:])
        except DsollamaError as error:
            return filled, error
        return filled, None

    def _claim(self, number: int, count: int) -> None:
        self._arrivals.arrived(number, count)
        with self._claiming:
            self._unclaimed += count
            if self._unclaimed >= PROGRESS_BYTES:
                self._unclaimed = 0
                write_progress(self._staging, self._arrivals.claims())

    def _wait_for_digests(self, position: int) -> None:
        """Hold back while the digests are busy and `position` is a little too far ahead of them."""
        while (
            self.digesting
            and not self._arrivals.stop.is_set()
            and not self._window.reaches(position)
            and 0 < position - self._window.front < WAITING_BYTES
        ):
            self._held_back = True
            self._arrivals.stop.wait(POLL_SECONDS)
