"""The names of an install: which ones, and how they are spelled beside those that are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dsollama.catalog.formats import THINKING, Variant
from dsollama.catalog.models import CatalogModel
from dsollama.errors import InvalidNameError, UnknownVariantError, UsageError
from dsollama.install.request import InstallRequest
from dsollama.manifest.layers import Layer, ModelFacts, config_layer, small_layers
from dsollama.manifest.modelfile import Modelfile
from dsollama.manifest.names import MAX_PART, ModelName, parse_name
from dsollama.store.places import require_place
from dsollama.store.spelling import by_spelling, clashes, spelled, touching
from dsollama.store.store import Store
from dsollama.templates.variants import catalog_modelfile, choose_variants

_ELSEWHERE = re.compile(r"cloud|local|.*-cloud", re.IGNORECASE)
"""Tags that Ollama 0.33.0 takes for another place (internal/modelref): a model with such a tag can
be neither run nor removed."""


@dataclass(frozen=True)
class PlannedModel:
    """A name to write: its template variant (None: the GGUF's own template) and its settings."""

    name: ModelName
    variant: Variant | None
    config: Layer
    modelfile: Modelfile

    @property
    def small(self) -> tuple[Layer, ...]:
        """The layers beside the weights."""
        return small_layers(self.modelfile)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": str(self.name),
            "variant": self.variant.name if self.variant else None,
            "layers": [layer.entry() for layer in (self.config, *self.small)],
        }


def name_models(
    request: InstallRequest,
    model: CatalogModel | None,
    repository: str,
    quant: str,
    variants: Sequence[Variant | None],
    facts: ModelFacts,
) -> tuple[PlannedModel, ...]:
    """Return the models of an install under the names that are asked for, or the usual ones.

    Args:
        request: may have a `--name`; one without a tag gets the quant's.
        model: the catalog's entry, or None.
        repository: OWNER/REPO.
        quant: label as the repository writes it.
        variants: one model each.
        facts: of the weights.

    Raises:
        InvalidNameError: Ollama would not accept a name, or never find it.
    """
    text = request.name or (f"{model.name if model else f'hf.co/{repository}'}:{quant}")
    if ":" not in text.rsplit("/", 1)[-1]:
        text = f"{text}:{quant}"
    try:
        base = parse_name(text)
        return tuple(_planned(base, model, each, facts) for each in variants)
    except InvalidNameError as error:
        raise InvalidNameError(str(error), f"{other_name_hint(text)} {error.hint}") from error


def other_name_hint(text: str) -> str:
    """Return the hint that names a `--name` which Ollama and every file system take.

    Args:
        text: the name that is not to be had.
    """
    head, _, tag = text.rpartition(":")
    model = head.rsplit("/", 1)[-1]
    return f"Give it another name: --name {_clean(model)}:{_clean(tag)}."


def spell(models: Sequence[PlannedModel], *existing: Sequence[ModelName]) -> Spelled:
    """Return the models under the names that have to be written beside `existing` ones.

    Args:
        models: as asked for.
        existing: as for `store.spelling.spelled`.
    """
    found = tuple(replace(each, name=spelled(each.name, *existing)) for each in models)
    notes = [
        f"the name {new.name} is spelled as Ollama finds it, not {old.name}"
        for old, new in zip(models, found, strict=True)
        if str(new.name) != str(old.name)
    ]
    names = [name for names in existing for name in names]
    twins = by_spelling(clashes([*names, *(model.name for model in found)]))
    notes += dict.fromkeys(each.text() for model in found for each in touching(model.name, twins))
    return Spelled(found, tuple(notes))


@dataclass(frozen=True)
class Spelled:
    """Models with their final names, and what the user should know of these, a sentence each."""

    models: tuple[PlannedModel, ...]
    notes: tuple[str, ...]


def spell_for_store(models: Sequence[PlannedModel], store: Store) -> Spelled:
    """Return the models under the names that have to be written into a store as it is now."""
    read = [each.name for each in store.models()]
    return spell(models, read, store.names())


def require_places(models: Sequence[PlannedModel], store: Store) -> None:
    """Refuse names that the store cannot hold.

    Raises:
        InvalidNameError: its file system takes no names as long as that.
        StoreNotWritableError: something is in the way.
    """
    for model in models:
        require_place(store, model.name, other_name_hint(f"{model.name.model}-2:{model.name.tag}"))


def _planned(
    base: ModelName, model: CatalogModel | None, variant: Variant | None, facts: ModelFacts
) -> PlannedModel:
    config = config_layer(facts)
    if model is None or variant is None:
        return PlannedModel(_findable(base), None, config, Modelfile(""))
    name = _findable(base.with_tag(base.tag + variant.tag_suffix))
    return PlannedModel(name, variant, config, catalog_modelfile(model, variant, ""))


def _findable(name: ModelName) -> ModelName:
    if _ELSEWHERE.fullmatch(name.tag):
        raise InvalidNameError(
            f"Ollama takes the tag of {name} for a place, and would never find the model.",
            "Such tags are `local`, `cloud` and what ends in -cloud.",
        )
    return name


def _clean(part: str) -> str:
    """Return a part of a name as Ollama takes it, with room for the tag of a variant."""
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", part).lstrip("-.")[
        : MAX_PART - len(THINKING.tag_suffix)
    ]
    return "model" if not text else f"{text}-1" if _ELSEWHERE.fullmatch(text) else text


def variants_of(model: CatalogModel | None, wanted: Sequence[str]) -> tuple[Variant | None, ...]:
    """Return the wanted template variants; one None for a model that keeps its own template.

    Raises:
        UnknownVariantError: the model has no such variant.
    """
    if model is not None:
        return choose_variants(model.variants, wanted)
    if wanted:
        raise UnknownVariantError(
            "Only the catalog's models have template variants.",
            "Leave out --variants: this repository's model keeps its own template.",
        )
    return (None,)


def require_sayable(store: Store, models: Sequence[PlannedModel]) -> None:
    """Refuse a store whose path the Modelfiles could not name, before the download."""
    base = str(store.blob_path("sha256:" + "0" * 64))
    try:
        for model in models:
            replace(model.modelfile, base=base).render()
    except ValueError as error:
        raise UsageError(
            f"No Modelfile can name the store {str(store.root)!r}: {error}.",
            "Give --store / OLLAMA_MODELS another path.",
        ) from error
