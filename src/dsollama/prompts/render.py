"""`template render`: one conversation through the renderer that the user names."""

from __future__ import annotations

from dsollama.catalog.models import CatalogModel
from dsollama.engines.protocol import Chat
from dsollama.engines.registry import connect
from dsollama.errors import UsageError
from dsollama.prompts.renderers import find_renderer
from dsollama.templates.jinja import render_jinja


def render(renderer: str, model: CatalogModel, chat: Chat, address: str | None) -> str:
    """Return the prompt.

    Args:
        renderer: a name of `prompts.renderers`.
        model: whose format, for our Jinja.
        chat: its `model` is the name on the engine, which a Go template needs.
        address: of the engine; None for its usual one.

    Raises:
        UsageError: the messages are not messages, a name is missing, or the address is none.
        EngineError: the engine does not answer, or refuses.
    """
    found = find_renderer(renderer)
    if found.engine is None:
        return render_jinja(model.format, chat.messages, chat.tools, thinking=bool(chat.think))
    if found.templates == "go" and not chat.model:
        raise UsageError(
            "A Go template is rendered by a running Ollama, under an installed model's name.",
            "Say it with --name; `dsollama list` shows the names.",
        )
    return connect(found.engine, address).render(chat)
