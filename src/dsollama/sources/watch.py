"""An end for reads that take too long, however often a byte comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from weakref import WeakSet

import requests

from dsollama.limits import start_thread
from dsollama.waiting import awake


class Watch:
    """Ends reads that take longer than `limit` seconds in which the process was not stopped.

    The socket's own timeout counts from each byte, so a server that trickles would hold a
    connection for days. Which of the two limits ends a silent read first is chance.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._reads: dict[int, tuple[float, requests.Response]] = {}
        self._ended: WeakSet[requests.Response] = WeakSet()
        self._running = False

    @contextmanager
    def over(self, answer: requests.Response) -> Iterator[None]:
        """Watch over the block, which reads from `answer`."""
        key = threading.get_ident()
        with self._lock:
            if not self._running:
                start_thread(self._run)
                self._running = True
            self._reads[key] = (awake() + self._limit, answer)
        try:
            yield
        finally:
            with self._lock:
                del self._reads[key]

    def ended(self, answer: requests.Response) -> bool:
        """Whether a read from `answer` was ended, so that its failure is no other than a stall."""
        with self._lock:
            return answer in self._ended

    def break_all(self) -> None:
        """End every read that is under way."""
        self._break(float("inf"))

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit / 4))
            self._break(awake())
            with self._lock:
                if not self._reads:
                    self._running = False
                    return

    def _break(self, now: float) -> None:
        with self._lock:
            late = [answer for deadline, answer in self._reads.values() if deadline < now]
            self._ended.update(late)
            for answer in late:
                with suppress(OSError, ValueError):  # it may be ending by itself
                    answer.raw.shutdown()
