"""llama.cpp's llama-server as an engine: one model, named by its file, with the GGUF's own Jinja.

It asks through `ollama.answers`, so the same bounds hold for what it answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from dsollama import programs
from dsollama.engines.protocol import Chat, Part, bounded
from dsollama.errors import (
    DsollamaError,
    LlamaServerRefusedError,
    LlamaServerSilentError,
    LlamaServerUnreachableError,
)
from dsollama.ollama.address import server_address
from dsollama.ollama.answers import (
    MAX_LINE_BYTES,
    Limits,
    Peer,
    PeerErrors,
    Question,
    asked,
    question,
    streamed,
)
from dsollama.settings import Patience, usual_patience

USUAL_ADDRESS = "http://127.0.0.1:8001"
MAX_MODELS = 1000
"""That a server may list; it serves one, or as a router those of a folder."""

_MAX_WORDS = 200
_DATA = b"data:"
_END = b"[DONE]"
_ERRORS = PeerErrors(LlamaServerUnreachableError, LlamaServerSilentError, LlamaServerRefusedError)

T = TypeVar("T")


class _Prompt(Struct, frozen=True):
    """Of /apply-template."""

    prompt: str


class _Model(Struct, frozen=True):
    id: str


class _Models(Struct, frozen=True):
    """Of /v1/models."""

    data: Annotated[tuple[_Model, ...], Meta(max_length=MAX_MODELS)]


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta


class _Failure(Struct, frozen=True):
    message: str = ""


class _Chunk(Struct, frozen=True):
    """A line of a streamed answer of /v1/chat/completions."""

    choices: Annotated[tuple[_Choice, ...], Meta(max_length=1)] = ()
    error: _Failure | None = None


class LlamaServer:
    """The llama-server at an address."""

    def __init__(self, url: str | None = None, patience: Patience | None = None) -> None:
        """Ask nothing yet.

        Args:
            url: of the server; None for http://127.0.0.1:8001.
            patience: how long the server is waited for; None for what the environment says.

        Raises:
            UsageError: it is no address.
        """
        self._peer = Peer(
            server_address(url or USUAL_ADDRESS, "--url"),
            "llama-server",
            "--url",
            "Start it with --jinja, and say where with --url.",
            _ERRORS,
        )
        self._patience = patience or usual_patience()

    def names(self) -> list[str]:
        """Return the names of its models.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return [model.id for model in self._asked(question("GET", "/v1/models"), _Models).data]

    def render(self, chat: Chat) -> str:
        """Return the prompt.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return self._asked(question("POST", "/apply-template", _body(chat)), _Prompt).prompt

    def answer(self, chat: Chat) -> Iterator[Part]:
        """Yield the answer's parts as they arrive.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return bounded(self._parts(chat), self._peer.too_long(chat.model or "the llama-server"))

    def healthy(self) -> bool:
        """Whether it answers and has loaded its model."""
        limits = Limits(self._patience.server)
        try:
            return asked(self._peer, question("GET", "/health"), limits).ok
        except DsollamaError:
            return False

    def _parts(self, chat: Chat) -> Iterator[Part]:
        wanted = question("POST", "/v1/chat/completions", {**_body(chat), "stream": True})
        limits = Limits(self._patience.work, MAX_LINE_BYTES)
        with streamed(self._peer, wanted, limits) as stream:
            if not stream.ok:
                raise self._refused(stream.status, b"".join(stream.lines()))
            for line in stream.lines():
                if not line.startswith(_DATA):
                    continue  # a comment that keeps the connection open
                data = line.removeprefix(_DATA).strip()
                if data == _END:
                    return
                chunk = self._shaped(data, _Chunk)
                if chunk.error is not None:
                    raise self._refused(stream.status, chunk.error.message.encode())
                for choice in chunk.choices:
                    yield Part(choice.delta.reasoning_content or "", thinking=True)
                    yield Part(choice.delta.content or "", thinking=False)
        raise self._peer.broken()

    def _asked(self, wanted: Question, shape: type[T]) -> T:
        answer = asked(self._peer, wanted, Limits(self._patience.server))
        if answer.ok:
            return self._shaped(answer.body, shape)
        raise self._refused(answer.status, answer.body)

    def _shaped(self, data: bytes, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=shape)
        except (ValueError, RecursionError) as error:
            raise self._peer.no_server("it is not llama-server's JSON") from error

    def _refused(self, status: int, body: bytes) -> LlamaServerRefusedError:
        said = body[:_MAX_WORDS].decode(errors="replace") or f"HTTP {status}"
        return LlamaServerRefusedError(
            f"The llama-server at {self._peer.address} refuses: {said}", "Its log has more."
        )


def _body(chat: Chat) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": list(chat.messages)}
    if chat.tools:
        body["tools"] = list(chat.tools)
    if chat.think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": chat.think}
    return body


@contextmanager
def private_llama_server(
    program: Path, weights: Path, port: int, environment: Mapping[str, str], log: Path
) -> Iterator[str]:
    """Run a llama-server on one GGUF and yield its address once it answers; afterwards stop it.

    Args:
        program: the llama-server.
        weights: the GGUF, such as the blob of an Ollama's store.
        port: on 127.0.0.1.
        environment: all of its variables; LLAMA_ARG_* are more options.
        log: the file for what it says.

    Raises:
        ProgramFailedError: it does not come up.
    """
    address = f"http://127.0.0.1:{port}"
    command = [str(program), "-m", str(weights), "--jinja", "--port", str(port)]
    answers = LlamaServer(address, Patience(server=2.0)).healthy
    with programs.serving(command, environment, log, answers):
        yield address
