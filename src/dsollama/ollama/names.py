"""What a running Ollama lists; asked without the client, whose import is slow."""

from __future__ import annotations

import requests

from dsollama.errors import DsollamaError
from dsollama.net.sessions import new_session
from dsollama.ollama.address import server_address

TIMEOUT = 3.0
"""Seconds for one question to a server on this machine or near it."""


def listed_names(host: str | None) -> set[str] | None:
    """Return the names that the server at OLLAMA_HOST lists; None where none answers."""
    # The server is here or near; Go's clients skip proxies for it, too.
    session = new_session(proxied=False)
    try:
        answer = session.get(f"{server_address(host)}/api/tags", timeout=TIMEOUT)
        answer.raise_for_status()
        models = answer.json()["models"]
        return {str(model["name"]) for model in models}
    except (DsollamaError, requests.RequestException, ValueError, KeyError, TypeError):
        return None
