"""The plan of a check: which models, and each of their blobs once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dsollama.check.advice import Origins, again, one_spelling
from dsollama.check.findings import Finding
from dsollama.errors import BrokenManifestError, OversizedStoreError
from dsollama.manifest.layers import MODEL
from dsollama.manifest.manifest import InstalledLayer
from dsollama.manifest.names import ModelName
from dsollama.settings import Settings
from dsollama.store.spelling import Clash, by_spelling, clashes, touching
from dsollama.store.store import Store

MAX_BLOBS = 30_000
"""Of one check; more are checked model by model."""


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
        origin: `sha256:HEX` of the weights whose entry in the ledger tells how an install would
            write it again; None where there is none.
    """

    digest: str
    size: int
    media_types: tuple[str, ...]
    names: tuple[ModelName, ...]
    origin: str | None


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
        OversizedStoreError: there is more than one check can hold.
    """
    store = Store(settings.store)
    known = store.names()
    wanted = tuple(dict.fromkeys(map(store.find, names))) or known
    twins = _Twins(store, clashes(known))
    origins = Origins(store)
    models = []
    digests: set[str] = set()
    for name in wanted:
        model = _planned_model(store, name, origins, settings.endpoint)
        digests.update(layer.digest for layer in model.layers)
        if len(digests) > MAX_BLOBS:
            raise OversizedStoreError(
                f"The models of {store.root} have more than {MAX_BLOBS} blobs.",
                "Check them one by one: dsollama verify MODEL.",
            )
        models.append(replace(model, twins=twins.findings(name)))
    return CheckPlan(
        store=store.root,
        quick=quick,
        repair=repair,
        endpoint=settings.endpoint,
        offline=settings.offline,
        models=tuple(models),
        blobs=_planned_blobs(store, models),
    )


class _Twins:
    """Findings of names that clash; each clash is told with one advice, made once."""

    def __init__(self, store: Store, found: Sequence[Clash]) -> None:
        self._store = store
        self._found = by_spelling(found)
        self._told: dict[tuple[str, str], Finding] = {}

    def findings(self, name: ModelName) -> tuple[Finding, ...]:
        return tuple(self._finding(each) for each in touching(name, self._found))

    def _finding(self, clash: Clash) -> Finding:
        key = (clash.part, min(clash.names))
        if key not in self._told:
            told = Finding("twin-name", clash.text(), one_spelling(clash, self._store))
            self._told[key] = told
        return self._told[key]


def _planned_model(store: Store, name: ModelName, origins: Origins, endpoint: str) -> PlannedModel:
    try:
        model = store.model(name)
        layers = (model.config, *model.layers)
        for layer in layers:
            store.blob_path(layer.digest)
    except BrokenManifestError as error:
        advice = again(origins.of_name(name), store, endpoint, [name])
        return PlannedModel(name, (), (Finding(error.code, str(error), advice),))
    return PlannedModel(name, layers)


@dataclass
class _Gathered:
    """A blob while the models that share it are gathered; without order, but once each."""

    size: int
    origin: str | None = None
    media_types: dict[str, None] = field(default_factory=dict)
    names: dict[ModelName, None] = field(default_factory=dict)


def _planned_blobs(store: Store, models: Sequence[PlannedModel]) -> tuple[PlannedBlob, ...]:
    """Gather the layers by digest, small ones first: they are quickly told."""
    found: dict[str, _Gathered] = {}
    for model in models:
        weights = [each.digest for each in model.layers if each.media_type == MODEL][:1]
        entry = store.ledger.read(weights[0]) if weights else None
        ours = entry is not None and str(model.name) in entry.names
        for layer in model.layers:
            blob = found.setdefault(layer.digest, _Gathered(layer.size))
            blob.media_types[layer.media_type] = None
            blob.names[model.name] = None
            # Another's model on our weights has settings that no install of ours would write.
            if blob.origin is None and entry and (ours or layer.media_type == MODEL):
                blob.origin = weights[0]
    planned = (
        PlannedBlob(digest, each.size, tuple(each.media_types), tuple(each.names), each.origin)
        for digest, each in found.items()
    )
    return tuple(sorted(planned, key=lambda each: (each.size, each.digest)))
