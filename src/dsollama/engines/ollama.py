"""Ollama as an engine: names and prompts by plain questions, answers by the `ollama` client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsollama.engines.protocol import Chat, Part, bounded
from dsollama.ollama.address import server_address
from dsollama.ollama.server import Server
from dsollama.settings import usual_ollama_host


class Ollama:
    """The Ollama at an address."""

    def __init__(self, host: str | None = None) -> None:
        """Ask nothing yet.

        Args:
            host: as OLLAMA_HOST has it; None for what the environment says.

        Raises:
            UsageError: it is no address.
        """
        self._host = usual_ollama_host() if host is None else host
        self._server = Server(server_address(self._host))

    def names(self) -> list[str]:
        """Return the names of its models.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return self._server.names()

    def render(self, chat: Chat) -> str:
        """Return the prompt; the first one may load the model.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, refuses, or is too old to show prompts.
        """
        body: dict[str, Any] = {"model": chat.model, "messages": list(chat.messages)}
        if chat.tools:
            body["tools"] = list(chat.tools)
        if chat.think is not None:
            body["think"] = chat.think
        return self._server.render(body)

    def answer(self, chat: Chat) -> Iterator[Part]:
        """Yield the answer's parts as they arrive.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, or refuses.
        """
        return bounded(self._parts(chat), self._server.peer.too_long(chat.model))

    def _parts(self, chat: Chat) -> Iterator[Part]:
        # Here, because this import takes most of a second, and a prompt needs no client.
        from dsollama.ollama.client import connect, ollama_failures  # noqa: PLC0415

        with ollama_failures(self._host):
            stream = connect(self._host).chat(
                chat.model,
                messages=chat.messages,
                tools=chat.tools,
                stream=True,
                think=chat.think,
            )
            for chunk in stream:
                yield Part(chunk.message.thinking or "", thinking=True)
                yield Part(chunk.message.content or "", thinking=False)
