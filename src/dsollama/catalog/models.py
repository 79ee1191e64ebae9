"""The catalog: each model with its repositories, settings and template variants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dsollama.catalog.formats import FORMATS, VARIANTS
from dsollama.errors import MalformedCatalogError, UnknownModelError, UsageError
from dsollama.resources import read_data

DEFAULT_MODEL = "v3.1-terminus"
_HF_ADDRESS = re.compile(
    r"(?:https://)?(?:hf\.co|huggingface\.co)/"
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(?::(?P<quant>[\w.-]+))?"
)


@dataclass(frozen=True)
class CatalogModel:
    """One model of the documents.

    Attributes:
        key: what `--model` takes.
        title: its name as DeepSeek writes it.
        name: its name in Ollama, without a tag.
        repositories: on the Hub, the preferred one first.
        format: which prompt format its templates have (`catalog.formats`).
        variants: names of its template variants, the plain name first (`catalog.formats`).
        recommended: the quant that the documents recommend.
        params: Ollama parameters.
        system: the system prompt of the documents, or empty.
        max_context: most tokens of context.
        recommended_ram_gb: RAM (or RAM + VRAM) for the recommended quant, in GB; 0 if not stated.
        sizes: size on disk by quant without its `UD-`, in GB.
    """

    key: str
    title: str
    name: str
    repositories: tuple[str, ...]
    format: str
    variants: tuple[str, ...]
    recommended: str
    params: Mapping[str, float | int]
    system: str
    max_context: int
    recommended_ram_gb: int
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Target:
    """What the user asked for, before the Hub is asked.

    Attributes:
        repository: the Hub repository to look in first.
        alternatives: other repositories of the same model.
        quant: the quant as typed.
        model: the catalog's entry; None for a repository that the catalog does not know.
    """

    repository: str
    alternatives: tuple[str, ...]
    quant: str
    model: CatalogModel | None


@cache
def load_catalog() -> Mapping[str, CatalogModel]:
    """Return the catalog by key, in the order of `models.toml`.

    Raises:
        MalformedCatalogError: an entry is incomplete, or names an unknown format or variant.
    """
    return read_catalog(read_data("catalog", "models.toml"))


def read_catalog(text: str) -> Mapping[str, CatalogModel]:
    """Return the models that a text such as `models.toml` lists.

    Raises:
        MalformedCatalogError: as `load_catalog`.
    """
    import tomllib  # noqa: PLC0415 - a command's start needs no catalog

    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MalformedCatalogError(f"The catalog is not TOML: {error}.") from error
    return {key: _model(key, entry) for key, entry in entries.items()}


def find_model(key: str) -> CatalogModel:
    """Return the model called `key` (its key, name or title, in any case).

    Raises:
        UnknownModelError: with the keys that there are.
    """
    wanted = key.lower()
    for model in load_catalog().values():
        if wanted in {model.key, model.name, model.title.lower()}:
            return model
    raise UnknownModelError(
        f"There is no model {key!r} in the catalog.",
        f"It has {', '.join(load_catalog())}; any other repository goes by hf.co/OWNER/REPO:QUANT.",
    )


def find_by_repository(repository: str) -> CatalogModel | None:
    """Return the model that `repository` (OWNER/REPO, in any case) holds, if the catalog knows."""
    wanted = repository.lower()
    for model in load_catalog().values():
        if wanted in {each.lower() for each in model.repositories}:
            return model
    return None


def resolve_target(typed: str, model_key: str | None) -> Target:
    """Turn `QUANT` or `hf.co/OWNER/REPO:QUANT` into a target.

    Args:
        typed: the command's argument.
        model_key: the value of `--model`; None when it was not given.

    Raises:
        UnknownModelError: `model_key` is not in the catalog.
        UsageError: both an address and `--model`, or neither a quant nor an address.
    """
    match = _HF_ADDRESS.fullmatch(typed)
    if match is None:
        if "/" in typed:
            raise UsageError(
                f"{typed!r} is neither a quant nor an address.",
                "A repository is written hf.co/OWNER/REPO:QUANT.",
            )
        model = find_model(model_key or DEFAULT_MODEL)
        return Target(model.repositories[0], model.repositories[1:], typed, model)
    if model_key is not None:
        raise UsageError(
            "An hf.co address already names the model.", "Leave out --model, or give only a quant."
        )
    repository = match["repo"]
    return Target(repository, (), match["quant"] or "", find_by_repository(repository))


def _model(key: str, entry: dict[str, Any]) -> CatalogModel:
    try:
        model = _read_model(key, entry)
    except KeyError as error:
        raise MalformedCatalogError(f"The catalog's model {key} has no {error}.") from error
    if model.format not in FORMATS:
        raise MalformedCatalogError(
            f"The catalog's model {key} has the unknown prompt format {model.format!r}.",
            f"There are {', '.join(FORMATS)}; a new one needs an entry in catalog/formats.py.",
        )
    unknown = [name for name in model.variants if name not in VARIANTS]
    if unknown or not model.variants:
        which = f"the unknown template variant {unknown[0]!r}" if unknown else "no template variant"
        raise MalformedCatalogError(
            f"The catalog's model {key} has {which}.", f"There are {', '.join(VARIANTS)}."
        )
    return model


def _read_model(key: str, entry: dict[str, Any]) -> CatalogModel:
    return CatalogModel(
        key=key,
        title=entry["title"],
        name=entry["name"],
        repositories=tuple(entry["repositories"]),
        format=entry["format"],
        variants=tuple(entry["variants"]),
        recommended=entry["recommended"],
        params=entry["params"],
        system=entry.get("system", ""),
        max_context=entry["max_context"],
        recommended_ram_gb=entry.get("recommended_ram_gb", 0),
        sizes=entry["sizes"],
    )
