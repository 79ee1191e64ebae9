"""What a running Ollama lists; asked without the client, whose import is slow."""

from __future__ import annotations

from dsollama.errors import OllamaUnreachableError
from dsollama.ollama.address import server_address
from dsollama.ollama.server import Server
from dsollama.settings import Patience

ASIDE = Patience(server=3.0)
"""For a question aside, to a server on this machine or near it."""


def listed_names(host: str | None) -> set[str] | None:
    """Return the names that the server at OLLAMA_HOST lists; None where none answers.

    Raises:
        EngineError: something answers, but not as Ollama does.
    """
    try:
        return set(Server(server_address(host), ASIDE).names())
    except OllamaUnreachableError:
        return None
