"""A server on loopback that may do anything: a test says byte by byte what it sends."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

GUARD_SECONDS = 300.0
"""After this long without a byte a connection is given up: no test waits for it."""


@dataclass
class Visit:
    """One connection whose request's head has arrived.

    Attributes:
        connection: the socket.
        head: the request line and headers.
        rest: what of the body came with them.
        over: is set when the server ends.
    """

    connection: socket.socket
    head: bytes
    rest: bytes
    over: threading.Event

    @property
    def path(self) -> str:
        """What is asked for."""
        return self.head.split(b" ", 2)[1].decode()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.connection.sendall(data)

    def forever(self, data: bytes, pause: float = 0.0) -> None:
        """Send the same again and again, until the client has gone or the server ends."""
        while not self.over.wait(pause) if pause else not self.over.is_set():
            self.connection.sendall(data)

    def body(self) -> bytes:
        """Read the request's body, of the length that its head says."""
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.head)
        wanted = int(found[1]) if found else 0
        while len(self.rest) < wanted and (data := self.connection.recv(2**20)):
            self.rest += data
        return self.rest

    def silence(self) -> None:
        """Say nothing until the client has gone or the server ends."""
        while not self.over.is_set() and self.connection.recv(2**16):
            pass


Answer = Callable[[Visit], None]


@dataclass
class Rogue:
    """The server while it runs.

    Attributes:
        host: HOST:PORT.
        visits: all so far, also those whose connection has ended.
    """

    host: str
    visits: list[Visit] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://{self.host}"

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [visit.path for visit in self.visits]


@contextmanager
def rogue(answer: Answer) -> Iterator[Rogue]:
    """Run a server that meets each request with `answer`, one request a connection."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    open_now: set[socket.socket] = set()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Rogue(f"127.0.0.1:{listener.getsockname()[1]}")

        def meet(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.settimeout(GUARD_SECONDS)
                head, end, rest = _head(connection)
                if end:
                    visit = Visit(connection, head, rest, over)
                    server.visits.append(visit)
                    answer(visit)
            open_now.discard(connection)

        def accept() -> None:
            with suppress(OSError):  # the listener is shut
                while not over.is_set():
                    connection, _ = listener.accept()
                    open_now.add(connection)
                    threads.append(threading.Thread(target=meet, args=(connection,), daemon=True))
                    threads[-1].start()

        door = threading.Thread(target=accept, daemon=True)
        door.start()
        try:
            yield server
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            door.join(GUARD_SECONDS)
            for connection in list(open_now):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(GUARD_SECONDS)


def _head(connection: socket.socket) -> tuple[bytes, bytes, bytes]:
    """Read up to the empty line."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(2**16)
        if not more:
            return data, b"", b""
        data += more
    return data.partition(b"\r\n\r\n")


def answers(
    body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> Answer:
    """Answer rightly: a head with the body's length, and the body."""
    lines = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}

    def answer(visit: Visit) -> None:
        visit.body()
        visit.send(head(status, lines))
        visit.send(body)

    return answer


def answers_json(value: object, status: str = "200 OK") -> Answer:
    """Answer with JSON, as Ollama does."""
    return answers(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def by_path(places: Mapping[str, Answer], otherwise: Answer) -> Answer:
    """Answer as the path says: the first key of `places` that the path begins with."""

    def answer(visit: Visit) -> None:
        found = (each for path, each in places.items() if visit.path.startswith(path))
        next(found, otherwise)(visit)

    return answer


def head(status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """The head of an answer, its empty line too."""
    lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def sends(before: bytes, endlessly: bytes = b"", pause: float = 0.0) -> Answer:
    """Send `before` as it stands, then `endlessly` for ever; without the latter, silence."""

    def answer(visit: Visit) -> None:
        visit.body()
        visit.send(before)
        if endlessly:
            visit.forever(endlessly, pause)
        else:
            visit.silence()

    return answer
