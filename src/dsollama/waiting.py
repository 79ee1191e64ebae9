"""Bounds on time: of one question, whatever a server does, and of what a stopped process waited.

The clients' own timeouts begin anew with every byte, so the head of an answer that comes byte by
byte would hold them for days; and Ctrl-C would have to wait for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dsollama.limits import start_thread
from dsollama.privileges import as_caller

POLL_SECONDS = 0.05
TICK_SECONDS = 1.0

T = TypeVar("T")


def within(
    seconds: float,
    cancelled: threading.Event,
    ask: Callable[[], T],
    close: Callable[[T], None] = lambda _late: None,
) -> T:
    """Return what `ask` returns, or raise what it raises, if that takes no longer than `seconds`.

    Otherwise, or once `cancelled` is set, `ask` is left to a thread of its own, and what it
    returns in the end is given to `close`.

    Raises:
        TimeoutError: it takes longer, or was cancelled.
        LimitError: the system starts no thread for it.
    """
    call = _Call(ask, close)
    start_thread(call.run)
    waited = 0.0
    while not call.done.wait(POLL_SECONDS):
        waited += POLL_SECONDS
        if (waited >= seconds or cancelled.is_set()) and call.abandon():
            raise TimeoutError(f"its answer takes longer than {seconds:.0f} s")
    return call.result()


class Awake:
    """A clock that stands still while the process does: after Ctrl-Z, or in a suspended laptop.

    No server can be blamed for that time. A thread of its own sleeps for TICK_SECONDS again and
    again; what a sleep takes beyond twice as long, the process was stopped for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._at: float | None = None

    def __call__(self) -> float:
        """Return seconds since some moment in the past.

        Raises:
            LimitError: the system starts no thread for it.
        """
        with self._lock:
            if self._at is None:
                start_thread(self._run)
                self._at = time.monotonic()
            return self._seconds + self._since(self._at)

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            with self._lock:
                if self._at is not None:
                    self._seconds += self._since(self._at)
                    self._at = time.monotonic()

    def _since(self, moment: float) -> float:
        return min(time.monotonic() - moment, 2 * TICK_SECONDS)


awake = Awake()
"""The clock of this process."""


class _Call(Generic[T]):
    def __init__(self, ask: Callable[[], T], close: Callable[[T], None]) -> None:
        self._ask = ask
        self._close = close
        self._lock = threading.Lock()
        self._abandoned = False
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            with as_caller():  # certificates and the like are his
                self._found.append(self._ask())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._error = error
        with self._lock:
            self.done.set()
        if self._abandoned:
            for each in self._found:
                self._close(each)

    def abandon(self) -> bool:
        """Leave the call to itself; False where it has just ended."""
        with self._lock:
            self._abandoned = not self.done.is_set()
            return self._abandoned

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._found[0]
