"""How fast connections go: how many of them, and how far ahead of the digests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dsollama.transfer.buffer import Buffer
from dsollama.transfer.region import CELL_BYTES, Segment
from dsollama.transfer.ring import CELLS

FIRST_CONNECTIONS = 2
RAMP_SECONDS = 1.0
"""Connections begin with two and become one more a second while the digests keep up: a fast, near
Hub needs no more than two, a CDN's 30-100 MB/s each are added up within seconds."""

WAITING_BYTES = 4 * CELLS * CELL_BYTES
"""How far ahead of busy digests a connection waits for them, instead of filling the page cache
with what would have to be read back. A connection further ahead than this does not wait."""

POLL_SECONDS = 0.004


class Pace:
    """Back-pressure: keeps connections close to the digests, where that costs nothing."""

    def __init__(self, buffer: Buffer, stop: threading.Event, max_ahead: int | None) -> None:
        """Prepare.

        Args:
            buffer: its front is how far the digests are.
            stop: ends every wait.
            max_ahead: bytes ahead of the digests beyond which no segment is begun; None: no bound.
        """
        self._buffer = buffer
        self._stop = stop
        self._max_ahead = max_ahead
        self._digesting = False
        self._held_back = False

    @contextmanager
    def digests_idle(self) -> Iterator[None]:
        """Mark the time in which the digests wait for bytes, rather than bytes for them."""
        self._digesting = False
        yield
        self._digesting = True

    def may_begin(self, segment: Segment) -> bool:
        """Whether it is time to fetch `segment`."""
        return self._max_ahead is None or segment.start <= self._buffer.front + self._max_ahead

    def wait_for_turn(self, number: int) -> None:
        """Return when connection `number` (from 0) is to begin, or at the end."""
        for _ in range(number - FIRST_CONNECTIONS + 1):
            self._stop.wait(RAMP_SECONDS)
            while self._held_back and not self._stop.is_set():
                self._held_back = False
                self._stop.wait(RAMP_SECONDS)

    def wait_for_digests(self, position: int) -> None:
        """Hold back while the digests are busy and `position` is a little too far ahead of them."""
        while (
            self._digesting
            and not self._stop.is_set()
            and not self._buffer.reaches(position)
            and 0 < position - self._buffer.front < WAITING_BYTES
        ):
            self._held_back = True
            self._stop.wait(POLL_SECONDS)
