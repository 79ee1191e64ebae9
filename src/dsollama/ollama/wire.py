"""A connection to a server, bounded in bytes and in time.

The timeouts of HTTP clients begin anew with every byte, and none counts what comes around a body:
heads, informational answers, chunk extensions, trailers. Here every byte and every second of
waiting is counted at the socket, below HTTP, so that nothing that a server sends is left out.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPConnection

from dsollama.net.interim import FinalResponse
from dsollama.units import format_bytes, format_duration
from dsollama.waiting import within

SLICE_SECONDS = 0.25
"""One wait at the socket. Of a program that was stopped meanwhile (Ctrl-Z) this much is counted."""

CONNECT_SECONDS = 10.0
"""For finding an address, reaching it and TLS; half of it for one of several addresses."""

BUFFER_BYTES = 2**16


class WireError(Exception):
    """The connection broke; the text says how."""


class SilentError(WireError):
    """The server takes longer than it may."""


class DeafError(WireError):
    """The server takes longer for what it is sent."""


class TooLargeError(WireError):
    """The server sends more than it may."""


class Allowance:
    """What may still come: bytes, and seconds of waiting for them. Both count down."""

    def __init__(self, seconds: float, size: int) -> None:
        """Begin whole; both may be infinite."""
        self.seconds = seconds
        self.size = size
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self._waited = 0.0
        self._come = 0

    def charge(self, seconds: float, size: int) -> None:
        """Count what a wait has brought.

        Raises:
            SilentError: the time is over.
            TooLargeError: too much has come.
        """
        self._waited += seconds
        self._come += size
        if self._come > self.size:
            raise TooLargeError(f"more than {format_bytes(self.size)}")
        if self._waited >= self.seconds:
            raise SilentError(format_duration(self.seconds))


class BoundedSocket:
    """Stands for a socket in http.client; `end` closes it, `close` does not: a body may follow.

    Args:
        connected: the socket.
        allowances: all are charged with what is received.
        patience: seconds that one call of `sendall` may take.
        waits: hears again and again for how many seconds the receiver has taken nothing.
    """

    def __init__(
        self,
        connected: socket.socket,
        allowances: Sequence[Allowance],
        patience: float,
        waits: Callable[[float], None],
    ) -> None:
        self._socket = connected
        self._socket.settimeout(SLICE_SECONDS)
        self._allowances = allowances
        self._patience = patience
        self._waits = waits

    def sendall(self, data: bytes) -> None:
        """Send all of it, however often the receiver pauses.

        Raises:
            DeafError: the receiver takes too long.
            WireError: the connection broke.
        """
        view, waited, idle = memoryview(data).cast("B"), 0.0, 0.0
        while view:
            seconds, sent = self._timed(partial(self._socket.send, view))
            view = view[sent or 0 :]
            waited += seconds
            idle = 0.0 if sent else idle + seconds
            self._waits(idle)
            if waited >= self._patience:
                raise DeafError(format_duration(self._patience))

    def receive(self, buffer: memoryview) -> int:
        """Fill the buffer with what comes next; return how much, 0 at the end.

        Raises:
            SilentError: it takes too long.
            TooLargeError: too much has come.
            WireError: the connection broke.
        """
        while True:
            seconds, count = self._timed(partial(self._socket.recv_into, buffer))
            for each in self._allowances:
                each.charge(seconds, count or 0)
            if count is not None:
                return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the receiving side as a file."""
        return io.BufferedReader(_Received(self), BUFFER_BYTES)

    def close(self) -> None:
        """Leave it open."""

    def end(self) -> None:
        """Close it."""
        self._socket.close()

    def _timed(self, act: Callable[[], int]) -> tuple[float, int | None]:
        """Return how long it took, at most a slice, and what came of it; None after a slice."""
        began = time.monotonic()
        try:
            count = act()
        except TimeoutError:
            return SLICE_SECONDS, None
        except OSError as error:
            raise WireError(error.strerror or str(error)) from error
        return min(time.monotonic() - began, SLICE_SECONDS), count


class _Received(io.RawIOBase):
    def __init__(self, source: BoundedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._source.receive(buffer)


class BoundedConnection(HTTPConnection):
    """An HTTP connection whose socket is bounded."""

    response_class = FinalResponse

    def __init__(self, host: str, port: int, bounded: BoundedSocket) -> None:
        """Be connected already."""
        super().__init__(host, port)
        self.sock = bounded


def connect(host: str, port: int, seconds: float, tls: ssl.SSLContext | None) -> socket.socket:
    """Return a connected socket.

    Args:
        host: a name or an address.
        port: of the server.
        seconds: for all of it, the name server too.
        tls: whom to believe; None for plain HTTP.

    Raises:
        TimeoutError: it takes longer.
        OSError: nobody answers, or the certificate is not to be believed.
    """

    def reach() -> socket.socket:
        plain = socket.create_connection((host, port), timeout=seconds / 2)
        if tls is None:
            return plain
        try:
            return tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise

    return within(seconds, threading.Event(), reach, socket.socket.close)
