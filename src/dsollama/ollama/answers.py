"""What an Ollama or a llama-server answers: the one place that asks them, and bounds what comes.

- A proxy is never asked and no redirect followed: prompts and weights go to OLLAMA_HOST alone.
- Only what is not compressed is read, since a small answer may unpack to any size.
- An answer has so many bytes and so many seconds, all in all; a stream has them for each line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Protocol
from urllib.parse import urlsplit

from dsollama.errors import (
    EngineError,
    OllamaRefusedError,
    OllamaSilentError,
    OllamaUnreachableError,
    TransferError,
)
from dsollama.net.tls import certificate_error, tls_context
from dsollama.ollama.wire import (
    BUFFER_BYTES,
    CONNECT_SECONDS,
    Allowance,
    BoundedConnection,
    BoundedSocket,
    DeafError,
    SilentError,
    TooLargeError,
    WireError,
    connect,
)

MAX_ANSWER_BYTES = 8 * 2**20
"""A prompt that fills DeepSeek's context of 163,840 tokens has one megabyte."""

MAX_LINE_BYTES = 2**20
"""Of a stream. A line has one token, or what the server has done so far."""

MAX_STREAM_BYTES = 2**30
"""All lines of a stream. A token takes 150 bytes: these are four days of 20 tokens a second."""

_REDIRECTS = range(300, 400)


@dataclass(frozen=True)
class Limits:
    """How much an answer may have.

    Attributes:
        seconds: of waiting for a whole answer; of a stream, for each line.
        size: bytes on the wire, likewise.
        all_seconds: of a stream, for all lines.
        all_size: bytes of a stream.
    """

    seconds: float
    size: int = MAX_ANSWER_BYTES
    all_seconds: float = math.inf
    all_size: int = MAX_STREAM_BYTES


@dataclass(frozen=True)
class PeerErrors:
    """The errors of one kind of server."""

    unreachable: type[EngineError]
    silent: type[EngineError]
    refused: type[EngineError]


_OLLAMA = PeerErrors(OllamaUnreachableError, OllamaSilentError, OllamaRefusedError)


@dataclass(frozen=True)
class Peer:
    """A server.

    Attributes:
        address: a URL without a password.
        program: which one it is.
        setting: where its address is set.
        start: a hint for when nobody answers.
        errors: raised for it.
    """

    address: str
    program: str = "Ollama"
    setting: str = "OLLAMA_HOST"
    start: str = "Start it with `ollama serve`, or set OLLAMA_HOST to where it runs."
    errors: PeerErrors = _OLLAMA

    def nobody(self) -> EngineError:
        """Return the error for an address where nobody answers."""
        return self.errors.unreachable(f"No {self.program} answers at {self.address}.", self.start)

    def broken(self) -> EngineError:
        """Return the error for a connection that broke."""
        return self.errors.unreachable(
            f"The connection to the {self.program} at {self.address} broke.",
            "Its log may say why. Run the same command again.",
        )

    def no_server(self, what: str) -> EngineError:
        """Return the error for an answer that no such server gives."""
        return self.errors.refused(
            f"What listens at {self.address} does not answer as {self.program} does: {what}.",
            f"Set {self.setting} to where {self.program} runs.",
        )

    def too_long(self, name: str) -> EngineError:
        """Return the error for an answer that is longer than any model's."""
        return self.errors.refused(
            f"The answer of {name} is longer than any model's.",
            f"Something else may answer: set {self.setting} to where {self.program} runs.",
        )

    def failure(self, error: WireError | HTTPException) -> Exception:
        """Return the error for what broke."""
        if isinstance(error, SilentError | DeafError):
            silent = isinstance(error, SilentError)
            what = "does not answer within" if silent else "takes nothing for"
            return self.errors.silent(
                f"The {self.program} at {self.address} {what} {error}.",
                "It may be busy, or stopped: its log has more. DSOLLAMA_ANSWER_TIMEOUT and "
                "DSOLLAMA_WORK_TIMEOUT let dsollama wait longer.",
            )
        if isinstance(error, TooLargeError):
            return self.no_server(f"its answer has no end ({error})")
        if isinstance(error, WireError | ConnectionError | IncompleteRead):
            return self.broken()
        return self.no_server("it speaks no HTTP")


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return self.status in range(200, 300)


class Body(Protocol):
    """What is sent: its blocks, and how many bytes they have together."""

    def __len__(self) -> int:
        """Return the bytes of all blocks."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the blocks."""


@dataclass(frozen=True)
class Question:
    """What is asked of a server.

    Attributes:
        method: of HTTP.
        path: below the address.
        body: bytes to send, or None.
        headers: besides those that every question has.
        patience: seconds that the server may take for one block of the body; None for those of the
            answer.
        waits: hears again and again for how many seconds the server has taken nothing of the body.
    """

    method: str
    path: str
    body: Body | bytes | None = None
    headers: Mapping[str, str] | None = None
    patience: float | None = None
    waits: Callable[[float], None] = lambda _seconds: None


def question(method: str, path: str, body: Mapping[str, Any] | None = None) -> Question:
    """Return a question whose body is JSON."""
    if body is None:
        return Question(method, path)
    headers = {"Content-Type": "application/json"}
    return Question(method, path, json.dumps(body).encode(), headers)


def asked(peer: Peer, wanted: Question, limits: Limits) -> Answer:
    """Ask, and return the whole answer.

    Raises:
        EngineError: one of `peer.errors`. Unreachable: nobody answers, or the connection broke.
            Silent: it takes too long. Refused: it is too large, compressed, a redirect, or no HTTP.
    """
    with _opened(peer, wanted, limits, [Allowance(limits.seconds, limits.size)]) as response:
        return Answer(response.status, b"".join(_chunks(peer, response)))


class Stream:
    """An answer that comes line by line."""

    def __init__(self, peer: Peer, response: HTTPResponse, line: Allowance) -> None:
        """Read nothing yet; `line` is what each line may have."""
        self.status = response.status
        self._peer = peer
        self._response = response
        self._line = line

    @property
    def ok(self) -> bool:
        """Whether the server does what was asked."""
        return self.status in range(200, 300)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines as they come, but for empty ones.

        Raises:
            EngineError: as `asked`.
        """
        left = b""
        for chunk in _chunks(self._peer, self._response):
            *lines, left = (left + chunk).split(b"\n")
            for line in filter(bytes.strip, lines):
                yield line
                if self.ok:  # a refusal is one answer, however many lines it has
                    self._line.renew()
        if left.strip():
            yield left


@contextmanager
def streamed(peer: Peer, wanted: Question, limits: Limits) -> Iterator[Stream]:
    """Ask, and give the answer's lines inside the block.

    Raises:
        EngineError: as `asked`.
    """
    line = Allowance(limits.seconds, limits.size)
    whole = Allowance(limits.all_seconds, limits.all_size)
    with _opened(peer, wanted, limits, [line, whole]) as response:
        yield Stream(peer, response, line)


@contextmanager
def _opened(
    peer: Peer, wanted: Question, limits: Limits, allowances: list[Allowance]
) -> Iterator[HTTPResponse]:
    parts = urlsplit(peer.address)
    host, tls = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    try:
        context = tls_context() if tls else None
        plain = connect(host, port, min(CONNECT_SECONDS, limits.seconds), context)
    except (OSError, UnicodeError) as error:  # the latter: a name that no name server can hold
        raise certificate_error(error, peer.address) or peer.nobody() from error
    patience = limits.seconds if wanted.patience is None else wanted.patience
    bounded = BoundedSocket(plain, allowances, patience, wanted.waits)
    try:
        response = _sent(peer, BoundedConnection(host, port, bounded), wanted, parts.path)
        _require_plain(peer, response)
        yield response
    finally:
        bounded.end()


def _sent(peer: Peer, connection: BoundedConnection, wanted: Question, prefix: str) -> HTTPResponse:
    headers = {"Accept-Encoding": "identity", "Connection": "close", **(wanted.headers or {})}
    if wanted.body is not None:
        headers["Content-Length"] = str(len(wanted.body))
    broken: WireError | None = None
    try:
        connection.request(wanted.method, prefix + wanted.path, wanted.body, headers)
    except DeafError as error:
        raise peer.failure(error) from error
    except WireError as error:  # a server that refuses an upload may say so and hang up
        broken = error
    try:
        return connection.getresponse()
    except (WireError, HTTPException) as error:
        raise peer.failure(broken or error) from error
    except TransferError as error:
        raise peer.no_server("it only announces an answer, without an end (HTTP 1xx)") from error


def _require_plain(peer: Peer, response: HTTPResponse) -> None:
    if response.status in _REDIRECTS:
        raise peer.errors.refused(
            f"The {peer.program} at {peer.address} sends dsollama on to "
            f"{_place(response.headers.get('Location', ''))}, which it does not follow.",
            f"Set {peer.setting} to the address where {peer.program} itself answers.",
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise peer.no_server("its answer is compressed")


def _place(location: str) -> str:
    """Return the server that an address names, without a password and what else may follow."""
    server = location.partition("?")[0].split("/")[:3]
    return "/".join(server).rpartition("@")[2][:100] or "another address"


def _chunks(peer: Peer, response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(BUFFER_BYTES):
            yield chunk
    except (WireError, HTTPException) as error:
        raise peer.failure(error) from error
    if response.length:  # less came than the head had said
        raise peer.broken()
