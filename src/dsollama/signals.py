"""Steps that no Ctrl-C, `kill` or closed terminal cuts in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from dsollama.errors import InterruptedByUserError

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted(done: str, hint: str = "") -> Iterator[Callable[[], bool]]:
    """Let the block end before a signal that stops the program is obeyed, however often it comes.

    Python runs handlers in the main thread alone, whichever thread the system gave the signal to.
    So there they are exchanged; in another thread nothing can raise KeyboardInterrupt. A signal
    that is ignored stays ignored.

    Args:
        done: what is said if a signal came and the block ended well.
        hint: and what the user can do then.

    Yields:
        Whether a signal has come.

    Raises:
        InterruptedByUserError: one came, and the block ended well.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {}
    try:
        for number in STOPS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, note)
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise InterruptedByUserError(done, hint)
