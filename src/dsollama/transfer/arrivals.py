"""What of a transfer is in place, shared by those who fetch and the one who digests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from dsollama.transfer.segments import Segment

WAIT_SECONDS = 0.2
"""How long a wait lasts before it looks around: for the report, or the end."""


class Arrivals:
    """Counts what each segment has, hands segments out, and keeps the first failure."""

    def __init__(self, segments: Sequence[Segment], claims: Mapping[int, int]) -> None:
        """Begin with `claims`: bytes in place by segment number."""
        self.segments = segments
        self.done = [0] * len(segments)
        for number, claim in claims.items():
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

    @property
    def waiting(self) -> int:
        """How many segments nobody fetches yet."""
        return len(self._queue)

    def kept(self) -> int:
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
        """Note that `count` bytes more of a segment are in place."""
        with self._changed:
            self.done[number] += count
            self.moved += count
            self._changed.notify()

    def wait(self, number: int, known: int, wanted: int) -> int:
        """Return how many bytes segment `number` has, waiting a while for `wanted` more.

        Raises:
            DsollamaError: what made a fetch fail.
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

    def end(self) -> None:
        """Let nobody go on."""
        self.stop.set()
        with self._queued:
            self._queued.notify_all()

    def give_back(self, number: int) -> None:
        """Have the rest of a segment fetched by somebody else, before everything else."""
        with self._queued:
            self._queue.appendleft(number)
            self._queued.notify()

    def forget(self, job: int) -> None:
        """Take back what is in place of a job."""
        with self._changed:
            for number, segment in enumerate(self.segments):
                if segment.job == job:
                    self.done[number] = 0

    def requeue(self, job: int) -> None:
        """Have a job fetched again, before everything else."""
        with self._queued:
            numbers = [n for n, segment in enumerate(self.segments) if segment.job == job]
            self._queue.extendleft(reversed(numbers))
            self._queued.notify_all()
