"""Template variants: the same model under two names that differ in thinking alone.

A variant's template is a head (templates/VARIANT.head.gotmpl), which decides about thinking and
makes Ollama take this template, followed by what prints JSON (templates/json.gotmpl) and the body
of the prompt format (templates/FORMAT.body.gotmpl). `catalog.formats` has the variants and formats;
docs/templates.md tells why each line is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from dsollama.catalog.formats import FORMATS, VARIANTS, Variant
from dsollama.catalog.models import CatalogModel
from dsollama.errors import UnknownVariantError
from dsollama.manifest.modelfile import Modelfile
from dsollama.resources import read_template


def choose_variants(available: Sequence[str], wanted: Sequence[str]) -> tuple[Variant, ...]:
    """Return the wanted variants of those a model has; all of them where none is named.

    Raises:
        UnknownVariantError: the model has no such variant.
    """
    for name in wanted:
        if name not in available:
            raise UnknownVariantError(
                f"This model has no variant {name!r}.", f"It has: {', '.join(available)}."
            )
    return tuple(VARIANTS[name] for name in available if not wanted or name in wanted)


def go_template(prompt_format: str, variant: Variant) -> str:
    """Return the Go template for Ollama of a prompt format and a variant.

    No newline at its end: it would become part of the prompt.
    """
    names = (variant.head, "json.gotmpl", FORMATS[prompt_format].body)
    return "".join(map(read_template, names)).removesuffix("\n")


def catalog_modelfile(model: CatalogModel, variant: Variant, base: str) -> Modelfile:
    """Return the Modelfile of a catalog model in a variant; `base` is what FROM names."""
    return Modelfile(
        base=base,
        template=go_template(model.format, variant),
        params=model.params,
        system=model.system,
        comment=f"{model.title}, {variant.name}: {variant.meaning}. Written by dsollama.",
    )
