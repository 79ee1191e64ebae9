"""Help texts that list models, quants and engines; their tables are read when one is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperArgument, TyperCommand, TyperOption

if TYPE_CHECKING:
    from dsollama.catalog.models import CatalogModel

MODELS = "{models}"
"""Stands in a help text for the keys of all models, the default first."""

QUANTS = "{quants}"
"""Stands in a help text for the quants of the default model."""

RENDERERS = "{renderers}"
"""Stands in a help text for what can render a prompt."""


class TableCommand(TyperCommand):
    """A command in whose help MODELS, QUANTS and RENDERERS stand for what there is."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, as click does."""
        self.help = fill(self.help or "")
        for parameter in self.params:
            if isinstance(parameter, TyperOption | TyperArgument):
                parameter.help = fill(parameter.help or "")
        super().format_help(ctx, formatter)


def fill(text: str) -> str:
    """Return a help text with the models, quants and renderers in place."""
    from dsollama.catalog.models import DEFAULT_MODEL, load_catalog

    if RENDERERS in text:
        from dsollama.prompts.renderers import renderers

        text = text.replace(RENDERERS, ", ".join(renderers()))
    models = load_catalog()
    quants = _quants(models[DEFAULT_MODEL])
    return text.replace(MODELS, ", ".join(models)).replace(QUANTS, quants)


def _quants(model: CatalogModel) -> str:
    bare = model.recommended.removeprefix("UD-")
    return ", ".join(
        f"{model.recommended} ({size} GB, recommended)" if quant == bare else f"{quant} ({size} GB)"
        for quant, size in model.sizes.items()
    )
