"""What can render a prompt, by name: our Jinja here, and every engine that is registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsollama.engines.registry import ENGINES
from dsollama.errors import UsageError

LOCAL = "jinja"
"""The name of our own renderer."""


@dataclass(frozen=True)
class Renderer:
    """What renders.

    Attributes:
        templates: which language its templates have.
        engine: its name in `engines.registry`; None for our Jinja.
    """

    templates: Literal["go", "jinja"]
    engine: str | None


def renderers() -> dict[str, Renderer]:
    """Return the renderers by name; `go` is another name for ollama."""
    return {
        LOCAL: Renderer("jinja", None),
        "go": Renderer("go", "ollama"),
        **{name: Renderer(each.templates, name) for name, each in ENGINES.items()},
    }


def find_renderer(name: str) -> Renderer:
    """Return the renderer of that name.

    Raises:
        UsageError: there is none.
    """
    known = renderers()
    if name not in known:
        raise UsageError(f"No engine is called {name!r}.", f"There are {', '.join(known)}.")
    return known[name]
