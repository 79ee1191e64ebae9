"""`template render`: one conversation through the engine that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import requests

from dsollama.catalog.models import CatalogModel
from dsollama.errors import OllamaRefusedError, OllamaUnreachableError, UsageError
from dsollama.modelfile.jinja import render_jinja
from dsollama.ollama.address import server_address
from dsollama.ollama.server import Server
from dsollama.verify.engines import Engine

SERVER_SECONDS = 30.0


def render(
    engine: Engine,
    model: CatalogModel,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    think: bool | None,
    name: str | None,
    host: str | None,
    url: str,
) -> str:
    """Return the prompt.

    Args:
        engine: which one.
        model: whose format, for the Jinja.
        messages: as /api/chat takes them.
        tools: as /api/chat takes them.
        think: True, False, or None to leave it to the engine.
        name: the model's name on the Ollama, for `go` and `ollama`.
        host: OLLAMA_HOST as it stands.
        url: address of the llama-server.

    Raises:
        UsageError: the messages are not messages, or a name is missing.
        EngineError: the engine does not answer, or refuses.
    """
    if engine is Engine.JINJA:
        return render_jinja(model.format, messages, tools, thinking=bool(think))
    if engine is Engine.LLAMA_SERVER:
        return _on_llama_server(url, messages, tools, think)
    if not name:
        raise UsageError(
            "A Go template is rendered by a running Ollama, under an installed model's name.",
            "Say it with --name; `dsollama list` shows the names.",
        )
    body: dict[str, Any] = {"model": name, "messages": list(messages)}
    if tools:
        body["tools"] = list(tools)
    if think is not None:
        body["think"] = think
    return Server(server_address(host)).render(body)


def _on_llama_server(
    url: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    think: bool | None,
) -> str:
    body: dict[str, Any] = {"messages": list(messages)}
    if tools:
        body["tools"] = list(tools)
    if think is not None:
        body["chat_template_kwargs"] = {"enable_thinking": think}
    try:
        answer = requests.post(
            f"{url.rstrip('/')}/apply-template", json=body, timeout=SERVER_SECONDS
        )
        found = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise OllamaUnreachableError(
            f"No llama-server answers at {url}.", "Start it with --jinja, and say where with --url."
        ) from error
    if not answer.ok or "prompt" not in found:
        raise OllamaRefusedError(f"The llama-server at {url} refuses: {str(found)[:200]}")
    return str(found["prompt"])
