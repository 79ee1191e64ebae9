"""The plan of a check: which models, and each of their blobs once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dsollama.errors import BrokenManifestError
from dsollama.modelfile.layers import MODEL
from dsollama.settings import Settings
from dsollama.store.ledger import Entry
from dsollama.store.names import ModelName
from dsollama.store.spelling import Clash, clashes
from dsollama.store.store import InstalledLayer, Store
from dsollama.verify.advice import again, entry_of_name, one_spelling
from dsollama.verify.findings import Finding


@dataclass(frozen=True)
class PlannedModel:
    """A model to check.

    Attributes:
        name: as the store spells it.
        layers: the config first.
        findings: what its manifest already shows.
        twins: where its name clashes with others.
    """

    name: ModelName
    layers: tuple[InstalledLayer, ...]
    findings: tuple[Finding, ...] = ()
    twins: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class PlannedBlob:
    """A blob to check.

    Attributes:
        digest: `sha256:HEX`.
        size: bytes that the first manifest says it has.
        media_types: what the manifests take it for.
        names: the models that share it.
        origin: the ledger's entry from which an install would write it again.
    """

    digest: str
    size: int
    media_types: tuple[str, ...]
    names: tuple[ModelName, ...]
    origin: Entry | None = field(repr=False)


@dataclass(frozen=True)
class CheckPlan:
    """Everything that a check will look at.

    Attributes:
        store: the OLLAMA_MODELS folder.
        quick: leave the weights unread but for their header.
        repair: mend what can be mended.
        endpoint: the Hub of the settings, which alone gets the token.
        offline: whether the network is forbidden.
        models: in the order of their names.
        blobs: each once.
    """

    store: Path
    quick: bool
    repair: bool
    endpoint: str
    offline: bool
    models: tuple[PlannedModel, ...]
    blobs: tuple[PlannedBlob, ...]


def plan_check(
    settings: Settings, names: Sequence[ModelName], *, quick: bool = False, repair: bool = False
) -> CheckPlan:
    """Read the manifests of `names`, or of every model of the store where there are none.

    Raises:
        NotInstalledError: the store has no such model.
    """
    store = Store(settings.store)
    known = store.names()
    wanted = tuple(dict.fromkeys(map(store.find, names))) or known
    twins = clashes(known)
    models = tuple(
        replace(_planned_model(store, name, settings.endpoint), twins=_twins(store, name, twins))
        for name in wanted
    )
    return CheckPlan(
        store=store.root,
        quick=quick,
        repair=repair,
        endpoint=settings.endpoint,
        offline=settings.offline,
        models=models,
        blobs=_planned_blobs(store, models),
    )


def _twins(store: Store, name: ModelName, found: Sequence[Clash]) -> tuple[Finding, ...]:
    return tuple(
        Finding("twin-name", each.text(), one_spelling(each, store))
        for each in found
        if each.touches(name)
    )


def _planned_model(store: Store, name: ModelName, endpoint: str) -> PlannedModel:
    try:
        model = store.model(name)
        layers = (model.config, *model.layers)
        for layer in layers:
            store.blob_path(layer.digest)
    except BrokenManifestError as error:
        advice = again(entry_of_name(store, name), store, endpoint, [name])
        return PlannedModel(name, (), (Finding(error.code, str(error), advice),))
    return PlannedModel(name, layers)


def _planned_blobs(store: Store, models: Sequence[PlannedModel]) -> tuple[PlannedBlob, ...]:
    """Gather the layers by digest, small ones first: they are quickly told."""
    found: dict[str, PlannedBlob] = {}
    for model in models:
        weights = [each.digest for each in model.layers if each.media_type == MODEL]
        entry = store.ledger.read(weights[0]) if weights else None
        for layer in model.layers:
            # Another's model on our weights has settings that no install of ours would write.
            ours = entry and (layer.digest in weights or str(model.name) in entry.names)
            origin = entry if ours else None
            before = found.get(layer.digest)
            found[layer.digest] = PlannedBlob(
                layer.digest,
                before.size if before else layer.size,
                tuple(dict.fromkeys([*(before.media_types if before else ()), layer.media_type])),
                tuple(dict.fromkeys([*(before.names if before else ()), model.name])),
                before.origin if before and before.origin else origin,
            )
    return tuple(sorted(found.values(), key=lambda each: (each.size, each.digest)))
