"""The names of a server: how it spells them, and what an install would replace there.

Only what the server tells is known: it lists the models that it can read, with the default host
and namespace left out, and says nothing of the template that it would take from a GGUF.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsollama.errors import InvalidNameError, NotInstalledError
from dsollama.install.naming import PlannedModel
from dsollama.install.replacing import Replaced
from dsollama.manifest.names import ModelName, parse_name
from dsollama.ollama.server import Server
from dsollama.ollama.shapes import Model

MAX_PARAMETERS = 2**16
"""Characters of a model's parameters as Ollama prints them."""


@dataclass(frozen=True)
class Listed:
    """A model that a server lists: its name, its manifest's digest, and its size in bytes."""

    name: ModelName
    digest: str
    size: int


def list_models(server: Server) -> tuple[Listed, ...]:
    """Return the models of a server.

    Raises:
        EngineError: it does not answer, or refuses.
    """
    found = map(_listed, server.models())
    return tuple(each for each in found if each is not None)


def find_replaced_there(
    server: Server, models: Sequence[PlannedModel], same: Callable[[str], bool]
) -> tuple[Replaced, ...]:
    """Return what the server has under these names, but for what is the same.

    Args:
        server: where.
        models: with their final names.
        same: tells which weights are those of the install.

    Raises:
        EngineError: it does not answer, or refuses.
    """
    listed = {each.name.folded: each for each in list_models(server)}
    pairs = [(each, listed[each.name.folded]) for each in models if each.name.folded in listed]
    found = (_replaced(server, model, there, same) for model, there in pairs)
    return tuple(each for each in found if each is not None)


def _listed(entry: Model) -> Listed | None:
    try:
        return Listed(parse_name(entry.name), entry.digest, entry.size)
    except InvalidNameError:
        return None


def _replaced(
    server: Server, model: PlannedModel, there: Listed, same: Callable[[str], bool]
) -> Replaced | None:
    try:
        weights = server.weights(str(model.name)) or ""
        is_same = same(weights)
        if is_same and _same_settings(server, model):
            return None
    except NotInstalledError:
        return None
    return Replaced(there.name, there.digest, weights, there.size, is_same)


def _same_settings(server: Server, model: PlannedModel) -> bool:
    shown = server.show(str(model.name))
    wanted = model.modelfile
    if wanted.template is not None and shown.template != wanted.template:
        return False
    return shown.system == wanted.system and _same_numbers(shown.parameters, wanted.params)


def _same_numbers(shown: str, wanted: Mapping[str, Any]) -> bool:
    """Compare parameters as Ollama prints them, a line each, with the catalog's numbers."""
    if len(shown) > MAX_PARAMETERS:
        return False
    try:
        found = [(key, float(text)) for key, text in map(str.split, shown.splitlines())]
    except ValueError:
        return False
    return sorted(found) == sorted((key, float(value)) for key, value in wanted.items())
