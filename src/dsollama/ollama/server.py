"""Questions to a running Ollama that its Python client cannot ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests

from dsollama.errors import (
    NotInstalledError,
    OllamaRefusedError,
    OllamaTooOldError,
    OllamaUnreachableError,
)

TIMEOUT = (5.0, 900.0)
"""Seconds to connect and to answer: the first question loads the model, which takes minutes."""

_NOT_FOUND = 404


class Server:
    """The server at an address."""

    def __init__(self, address: str) -> None:
        """Ask nothing yet."""
        self.address = address
        self._session = requests.Session()
        self._session.trust_env = False  # as in ollama.names

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON that the server answers.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, or refuses.
        """
        try:
            answer = self._session.request(method, self.address + path, json=body, timeout=TIMEOUT)
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise OllamaUnreachableError(
                f"No Ollama answers at {self.address}.",
                "Start it with `ollama serve`, or set OLLAMA_HOST to where it runs.",
            ) from error
        if answer.status_code == _NOT_FOUND:
            raise NotInstalledError(
                f"The Ollama at {self.address} has no such model.", "`ollama list` shows its names."
            )
        if not answer.ok or not isinstance(found, dict):
            words = found.get("error", "") if isinstance(found, dict) else ""
            raise OllamaRefusedError(
                f"The Ollama at {self.address} answered HTTP {answer.status_code}: {words}",
                "Its log has more.",
            )
        return found

    def render(self, body: Mapping[str, Any]) -> str:
        """Return the prompt that an /api/chat request would be answered for; generates nothing.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, refuses, or is too old to show prompts.
        """
        asked = {**body, "stream": False, "_debug_render_only": True}
        shown = self.ask("POST", "/api/chat", asked).get("_debug_info")
        if not isinstance(shown, dict) or "rendered_template" not in shown:
            raise OllamaTooOldError(
                f"The Ollama at {self.address} is too old: it shows no prompts that it renders."
            )
        return str(shown["rendered_template"])
