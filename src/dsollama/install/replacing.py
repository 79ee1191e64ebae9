"""What an install would replace: models that have its names and hold something else.

A name that is written over is lost: Ollama's next start prunes the blobs that nothing names any
more. So a plan lists each such model, somebody has to agree, and only what was agreed on is
replaced. To install the same again replaces nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dsollama.errors import BrokenManifestError, NameTakenError, NotInstalledError
from dsollama.install.naming import PlannedModel, other_name_hint
from dsollama.manifest.layers import MODEL
from dsollama.manifest.names import ModelName
from dsollama.store.files import read_small
from dsollama.store.store import MAX_JSON, InstalledModel, Store
from dsollama.units import format_bytes

Same = Callable[[str], bool]
"""Tells of the digest of some weights whether they are those of the install."""

_SHOWN = 12
"""Digits of a digest, as `dsollama list` shows them."""


@dataclass(frozen=True)
class Replaced:
    """A model whose name the install takes.

    Attributes:
        name: as it is spelled.
        manifest: names its very manifest, so that another one is not taken for it.
        weights: `sha256:HEX`; empty where they cannot be told.
        size: bytes of the weights.
        same_weights: whether it differs in settings only.
        shared: other names that keep its weights.
    """

    name: ModelName
    manifest: str
    weights: str = ""
    size: int = 0
    same_weights: bool = False
    shared: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name, and what is lost."""
        if not self.weights:
            return f"{self.name} (which weights it has cannot be told)"
        if self.same_weights:
            return f"{self.name} (other settings of the same weights)"
        weights = self.weights.removeprefix("sha256:")[:_SHOWN]
        kept = f", also in {', '.join(self.shared)}" if self.shared else ""
        return f"{self.name} (weights {weights}, {format_bytes(self.size)}{kept})"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; the size in bytes."""
        return {
            "name": str(self.name),
            "weights": self.weights or None,
            "size": self.size,
            "same_weights": self.same_weights,
            "weights_also_in": list(self.shared),
        }


def find_replaced(
    store: Store, models: Sequence[PlannedModel], same: Same, ours: Collection[str]
) -> tuple[Replaced, ...]:
    """Return what the store has under these names, but for what is the same.

    Args:
        store: where.
        models: with their final names.
        same: tells which weights are those of the install.
        ours: names that an earlier run of this install has written: what is broken there is
            mended, and not replaced.
    """
    there = [each for each in models if os.path.lexists(store.manifest_path(each.name))]
    found = (_replaced(store, each, same, ours=str(each.name) in ours) for each in there)
    return tuple(each for each in found if each is not None)


def require_agreed(found: Iterable[Replaced], agreed: Iterable[Replaced]) -> None:
    """Refuse to replace what was not in the plan.

    Raises:
        NameTakenError: a model has appeared under a name, or was changed.
    """
    known = {(each.name, each.manifest) for each in agreed}
    new = [each for each in found if (each.name, each.manifest) not in known]
    if new:
        raise NameTakenError(
            f"Meanwhile there is another model {' and '.join(map(str, new))}.",
            f"{other_name_hint(_second(new[0].name))} What was downloaded is kept.",
        )


def require_forced(replaced: Sequence[Replaced]) -> None:
    """Refuse to replace anything where nobody can be asked.

    Raises:
        NameTakenError: there is something.
    """
    if replaced:
        raise NameTakenError(
            f"The install would replace {' and '.join(map(str, replaced))}.",
            f"{other_name_hint(_second(replaced[0].name))} --force replaces it.",
        )


def _replaced(store: Store, model: PlannedModel, same: Same, *, ours: bool) -> Replaced | None:
    name, manifest = model.name, _fingerprint(store, model.name)
    there = _read(store, name)
    weights = there.layer(MODEL) if there else None
    if there is None or weights is None:
        return None if ours else Replaced(name, manifest)
    is_same = same(weights.digest)
    if is_same and _keeps_settings(store, there, model, ours=ours):
        return None
    shared = tuple(str(each.name) for each in store.models() if _shares(each, name, weights.digest))
    return Replaced(name, manifest, weights.digest, weights.size, is_same, shared)


def _read(store: Store, name: ModelName) -> InstalledModel | None:
    try:
        found = store.model(name)
    except (BrokenManifestError, NotInstalledError):
        return None
    return found if found.name == name else None  # else what is there leads nowhere


def _shares(model: InstalledModel, name: ModelName, weights: str) -> bool:
    return model.name != name and weights in {layer.digest for layer in model.layers}


def _keeps_settings(
    store: Store, there: InstalledModel, model: PlannedModel, *, ours: bool
) -> bool:
    """Whether the settings are the same, or ours and what they lack is lost already."""
    wanted = {layer.digest for layer in (model.config, *model.small)}
    layers = (there.config, *there.layers)
    found = {layer.digest for layer in layers if layer.media_type != MODEL}
    lost = [digest for digest in found - wanted if store.blob_path(digest).exists()]
    return found == wanted or (ours and not lost)


def _fingerprint(store: Store, name: ModelName) -> str:
    try:
        return hashlib.sha256(read_small(store.manifest_path(name), MAX_JSON)).hexdigest()
    except OSError as error:
        return str(error.errno)


def _second(name: ModelName) -> str:
    return f"{name.model}-2:{name.tag}"
