"""`template render`: one conversation through the engine that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dsollama.catalog.models import CatalogModel
from dsollama.errors import OllamaRefusedError, UsageError
from dsollama.ollama.address import server_address
from dsollama.ollama.answers import Limits, Peer, asked, question
from dsollama.ollama.server import Server
from dsollama.ollama.shapes import Applied
from dsollama.prompts.engines import Engine
from dsollama.settings import usual_patience
from dsollama.templates.jinja import render_jinja


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
    peer = Peer(
        _require_url(url),
        "llama-server",
        "--url",
        "Start it with --jinja, and say where with --url.",
    )
    limits = Limits(usual_patience().server)
    answer = asked(peer, question("POST", "/apply-template", body), limits)
    try:
        if answer.ok:
            return msgspec.json.decode(answer.body, type=Applied).prompt
    except (ValueError, RecursionError) as error:
        raise peer.no_server("it is no prompt") from error
    said = answer.body[:200].decode(errors="replace") or f"HTTP {answer.status}"
    raise OllamaRefusedError(f"The llama-server at {url} refuses: {said}")


def _require_url(url: str) -> str:
    try:
        return server_address(url)
    except UsageError as error:
        raise UsageError(f"--url is {url!r}, which is no address.", error.hint) from error
