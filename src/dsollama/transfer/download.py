"""Connections: each fetches one segment after another into the buffer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from dsollama.errors import DsollamaError, LimitError
from dsollama.limits import limit_error, most_connections, start_thread
from dsollama.sources.source import Stream
from dsollama.transfer.buffer import Buffer
from dsollama.transfer.pace import Pace
from dsollama.transfer.progress import Progress
from dsollama.transfer.region import Region
from dsollama.transfer.shard import ShardSource

FLUSH_SECONDS = 1.0
"""A slow connection writes at least this often."""


class Downloader:
    """The connections of one transfer."""

    def __init__(
        self,
        regions: Sequence[Region],
        source: ShardSource,
        buffer: Buffer,
        progress: Progress,
        pace: Pace,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            regions: what is fetched.
            source: gives the bytes.
            buffer: takes them.
            progress: says which are wanted next, and learns what has arrived.
            pace: says when.
        """
        self._regions = regions
        self._source = source
        self._buffer = buffer
        self._progress = progress
        self._pace = pace
        self._threads: list[threading.Thread] = []
        self._counting = threading.Lock()
        self._working = 0

    def start(self, connections: int) -> None:
        """Start the connections, some of them later; where a limit is met, fewer.

        Raises:
            LimitError: not even one can be started.
        """
        for number in range(min(most_connections(connections), max(self._progress.queued, 1))):
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
        self._progress.end()
        self._source.cancel()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """Fetch segments until the end; the first failure stops all.

        A limit that is met while others still work ends this connection alone.
        """
        segment = None
        try:
            self._pace.wait_for_turn(number)
            while not self._progress.stop.is_set():
                segment = self._progress.next_segment(self._pace.may_begin)
                if segment is not None:
                    self._fetch(segment)
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            if segment is None or not limit_error(error) or not self._leave():
                self._progress.fail(error)
            else:
                self._progress.give_back(segment)

    def _leave(self) -> bool:
        """Leave the work to the others, if there are any."""
        with self._counting:
            self._working -= 1
            return self._working > 0

    def _fetch(self, number: int) -> None:
        segment = self._progress.segments[number]
        region = self._regions[segment.region]
        at = segment.start + self._progress.done[number]
        start, end = region.in_shard(at), region.in_shard(segment.end)
        with self._source.open(region.shard.path, start, end, region.shard.size) as stream:
            receiver = _Receiver(stream)
            while at < segment.end and not self._progress.stop.is_set():
                self._pace.wait_for_digests(at)
                count = self._buffer.write(at, segment.end, receiver.fill)
                self._progress.arrived(number, count)
                at += count
                if receiver.failure is not None:
                    raise receiver.failure


class _Receiver:
    """Takes bytes from a stream, and keeps what ended it until they are written."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.failure: DsollamaError | None = None

    def fill(self, room: memoryview) -> int:
        """Fill the beginning of `room`; return how many bytes."""
        began, filled = time.monotonic(), 0
        try:
            while filled < len(room) and time.monotonic() - began < FLUSH_SECONDS:
                filled += self._stream.readinto(room[filled:])
        except DsollamaError as error:
            self.failure = error
        return filled
