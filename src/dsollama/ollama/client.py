"""The `ollama` client, with its failures as ours. Importing this costs most of a second.

The client itself has no bounds, asks proxies and follows redirects; so what it sends goes through
`ollama.answers`, as all other questions do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import msgspec

from dsollama.errors import DsollamaError, NotInstalledError, OllamaRefusedError
from dsollama.ollama.address import server_address
from dsollama.ollama.answers import MAX_LINE_BYTES, Limits, Peer, Question, Stream, streamed
from dsollama.ollama.package import ollama
from dsollama.ollama.shapes import Refusal
from dsollama.settings import Patience, usual_patience

_NOT_FOUND = 404
_PASSED_ON = ("content-type", "authorization")


def connect(host: str | None, patience: Patience | None = None) -> ollama.Client:
    """Return a client for OLLAMA_HOST as it stands; nothing is sent yet.

    An answer may go on for as long as it likes; between two of its lines the server may be silent
    for `patience.work`, because it loads 671 billion parameters first.
    """
    address = server_address(host)
    transport = _Bounded(Peer(address), patience or usual_patience())
    return ollama.Client(host=address, transport=transport, trust_env=False, follow_redirects=False)


@contextmanager
def ollama_failures(host: str | None) -> Iterator[None]:
    """Turn what the client cannot read inside the block into an error of `dsollama.errors`.

    Raises:
        OllamaRefusedError: it is not what Ollama says.
    """
    try:
        yield
    except DsollamaError:
        raise
    except (ollama.ResponseError, httpx.HTTPError, ValueError, TypeError, RecursionError) as error:
        peer = Peer(server_address(host))
        raise peer.no_server("it is not Ollama's JSON") from error


class _Bounded(httpx.BaseTransport):
    """Sends what httpx would send."""

    def __init__(self, peer: Peer, patience: Patience) -> None:
        self._peer = peer
        self._limits = Limits(patience.work, MAX_LINE_BYTES)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and return an answer whose lines come later.

        Raises:
            NotInstalledError: there is no such model.
            EngineError: as `answers.asked`.
        """
        headers = {key: request.headers[key] for key in _PASSED_ON if key in request.headers}
        prefix = httpx.URL(self._peer.address).raw_path.rstrip(b"/")
        path = request.url.raw_path.removeprefix(prefix).decode()
        question = Question(request.method, path, request.read(), headers)
        with ExitStack() as stack:
            stream = stack.enter_context(streamed(self._peer, question, self._limits))
            if not stream.ok:
                raise self._refused(stream.status, b"".join(stream.lines()))
            return httpx.Response(stream.status, stream=_Lines(self, stream, stack.pop_all()))

    def _refused(self, status: int, body: bytes) -> DsollamaError:
        try:
            words = msgspec.json.decode(body, type=Refusal).error.strip()
        except (ValueError, RecursionError):
            return self._peer.no_server("it is not Ollama's JSON")
        return self.error(status, words)

    def error(self, status: int, words: str) -> DsollamaError:
        """Return the error for what a server refuses in these words."""
        said = f"The Ollama at {self._peer.address} says: {words[:500] or f'HTTP {status}'}"
        if status == _NOT_FOUND:
            return NotInstalledError(
                said, "`ollama list` shows what it has; it may use another store than dsollama did."
            )
        return OllamaRefusedError(said, _advice(words))


class _Lines(httpx.SyncByteStream):
    def __init__(self, transport: _Bounded, stream: Stream, stack: ExitStack) -> None:
        self._transport = transport
        self._stream = stream
        self._stack = stack

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream.lines():
            error = msgspec.json.decode(line, type=Refusal).error
            if error:
                raise self._transport.error(self._stream.status, error)
            yield _escaped(line) + b"\n"

    def close(self) -> None:
        self._stack.close()


def _escaped(line: bytes) -> bytes:
    """Escape what JSON may hold as it is, and the client takes for the end of a line."""
    for character in "\u0085\u2028\u2029":
        line = line.replace(character.encode(), f"\\u{ord(character):04x}".encode())
    return line


def _advice(message: str) -> str:
    if "does not support thinking" in message:
        return "The plain name never thinks: use the name that ends in -thinking, or --think."
    if "memory" in message:
        return "Take a smaller quant, or leave experts in RAM (LLAMA_ARG_CPU_MOE=1 for `serve`)."
    return "The server's log has more (`journalctl -u ollama` where it runs as a service)."
