"""What of a transfer is in place, in memory and in the journals; and what is to be fetched next.

Connections take segments and note what arrives; the verifier waits for it. Two journals say it to
the next run (`journal`): one is durable, the other holds until the machine is started again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from dsollama.limits import start_thread
from dsollama.transfer.journal import (
    clear_claims,
    end_progress,
    read_claims,
    write_claims,
    write_progress,
)
from dsollama.transfer.region import Segment

WAIT_SECONDS = 0.2
"""How long a wait lasts before it looks around: for the report, or the end."""

SYNC_SECONDS = 1.0
"""Pause between two makings durable: what a power loss costs at most."""

PROGRESS_BYTES = 16 * 2**20
"""What a killed process loses at most, besides a cell a connection."""


class Progress:
    """Counts what each segment has, hands segments out, and keeps the journals true."""

    def __init__(
        self, segments: Sequence[Segment], staging: Path, sync: Callable[[], None]
    ) -> None:
        """Begin with what the journals of an earlier run claim.

        Args:
            segments: all of the transfer, in order.
            staging: folder of the journals.
            sync: makes durable what has arrived.
        """
        self.segments = segments
        self.done = [0] * len(segments)
        for number, claim in read_claims(staging, [each.size for each in segments]).items():
            self.done[number] = claim
        self.resumed = sum(self.done)
        self.total = sum(segment.size for segment in segments)
        self.moved = 0
        self.stop = threading.Event()
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        # A condition of its own, so that bytes that arrived wake their reader and nobody else.
        self._queued = threading.Condition()
        self._queue = deque(n for n, s in enumerate(segments) if self.done[n] < s.size)
        self._staging = staging
        self._sync = sync
        self._journaling = threading.Lock()
        self._checkpointing = threading.Lock()
        self._unclaimed = 0
        self._writer: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that writes the durable journal.

        Raises:
            LimitError: the system starts no more.
        """
        self._writer = start_thread(self._keep_journal)

    def end(self) -> None:
        """Let nobody go on."""
        self.stop.set()
        with self._queued:
            self._queued.notify_all()

    def close(self) -> None:
        """After `end`: make everything durable and leave one true journal.

        Raises:
            StoreError: the disk refused.
        """
        if self._writer is not None:
            self._writer.join()
        self.checkpoint()
        end_progress(self._staging)  # it may claim what was taken back since

    @property
    def queued(self) -> int:
        """How many segments nobody fetches yet."""
        return len(self._queue)

    def in_place(self) -> int:
        """Return the bytes in place."""
        return sum(self.done)

    def claims(self) -> dict[int, int]:
        """Return the bytes in place by segment number."""
        return {number: done for number, done in enumerate(self.done) if done}

    def next_segment(self, may_begin: Callable[[Segment], bool]) -> int | None:
        """Return the number of a segment to fetch; None after a while without one.

        Args:
            may_begin: whether it is time for the next segment.
        """
        with self._queued:
            if not self._is_next(may_begin):
                # A corrupt shard may be queued again until everything is verified.
                self._queued.wait(WAIT_SECONDS)
            return self._queue.popleft() if self._is_next(may_begin) else None

    def _is_next(self, may_begin: Callable[[Segment], bool]) -> bool:
        return bool(self._queue) and may_begin(self.segments[self._queue[0]])

    def arrived(self, number: int, count: int) -> None:
        """Note that `count` bytes more of a segment are in place.

        Raises:
            StoreError: a journal cannot be written.
        """
        with self._changed:
            self.done[number] += count
            self.moved += count
            self._changed.notify()
        with self._journaling:
            self._unclaimed += count
            if self._unclaimed >= PROGRESS_BYTES:
                self._unclaimed = 0
                write_progress(self._staging, self.claims())

    def wait(self, number: int, known: int, wanted: int) -> int:
        """Return how many bytes segment `number` has, waiting a while for `wanted` more.

        Raises:
            DsollamaError: what made a connection or the journal fail.
        """
        with self._changed:
            full = self.segments[number].size
            if self.done[number] < min(known + wanted, full) and self._failure is None:
                self._changed.wait(WAIT_SECONDS)
            if self._failure is not None:
                raise self._failure
            return self.done[number]

    def fail(self, error: BaseException) -> None:
        """Stop everything; the first failure is the one that is told."""
        with self._changed:
            self._failure = self._failure or error
            self.stop.set()
            self._changed.notify_all()

    def give_back(self, number: int) -> None:
        """Have the rest of a segment fetched by another connection, before everything else."""
        with self._queued:
            self._queue.appendleft(number)
            self._queued.notify()

    def reset(self, region: int) -> None:
        """Take back what is in place of a region."""
        with self._changed:
            for number, segment in enumerate(self.segments):
                if segment.region == region:
                    self.done[number] = 0

    def enqueue(self, region: int) -> None:
        """Have a region fetched again, before everything else."""
        with self._queued:
            numbers = [n for n, segment in enumerate(self.segments) if segment.region == region]
            self._queue.extendleft(reversed(numbers))
            self._queued.notify_all()

    def checkpoint(self) -> None:
        """Make what has arrived durable, then claim it.

        Raises:
            StoreError: the disk refused.
        """
        claims = self.claims()
        if not claims:
            clear_claims(self._staging)
            return
        self._sync()
        with self._checkpointing:
            write_claims(self._staging, claims)

    def _keep_journal(self) -> None:
        try:
            while not self.stop.wait(SYNC_SECONDS):
                self.checkpoint()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self.fail(error)
