"""Giving names to a merged file, under the store's lock: the end of every install."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from dsollama import __version__
from dsollama.errors import StoreBusyError, StoreError
from dsollama.events import Listener, StepStarted
from dsollama.install.journal import clear_claims
from dsollama.install.naming import spell_for_store
from dsollama.install.plan import InstallPlan, replaced_in_store, staged_pieces
from dsollama.install.replacing import require_agreed
from dsollama.install.staging import MERGED, remove_leftovers
from dsollama.install.transfer import BLOCK_BYTES
from dsollama.modelfile.layers import MODEL, layer_entry, manifest_bytes
from dsollama.store.ledger import Entry, Source, Span
from dsollama.store.store import Store


@dataclass(frozen=True)
class MergedFile:
    """A finished, durable `merged.gguf` in the staging folder.

    `moved` bytes came from the Hub and `copied` from files of this machine.
    """

    digest: str
    prefixes: tuple[str, ...]
    moved: int
    copied: int


def names_of(plan: InstallPlan) -> tuple[str, ...]:
    """Return the names that the plan gives."""
    return tuple(str(model.name) for model in plan.models)


def adopt(
    plan: InstallPlan, store: Store, staging: Path, blob: MergedFile, listener: Listener
) -> InstallPlan:
    """Make the merged file a blob and register it; return the plan with its final names."""
    listener(StepStarted("register", ", ".join(names_of(plan))))
    merged = staging / MERGED
    with store.changing():
        plan = _with_names(plan, store, blob.digest)
        # From here on the blob is nobody's until its manifests are there.
        with _taken_back_on_failure(plan, store, blob.digest, merged):
            # The ledger first: killed behind it, a rerun finds the blob and only registers it.
            store.ledger.write(blob.digest, _ledger_entry(plan, blob.prefixes))
            store.adopt_blob(blob.digest, merged)
            _register(plan, store, blob.digest)
        _unname_elsewhere(plan, store, blob.digest)
    clear_claims(staging)
    return plan


def take_over(plan: InstallPlan, store: Store, listener: Listener) -> InstallPlan:
    """Register a blob that the store has already; return the plan with its final names."""
    digest = plan.installed
    assert digest is not None  # noqa: S101 - the caller has looked
    listener(StepStarted("register", ", ".join(names_of(plan))))
    remove_leftovers(store, plan.key)
    with store.changing():
        if not store.has_blob(digest, plan.size):  # `dsollama remove` may be quicker
            raise StoreBusyError(
                "The model's weights have just been removed by another dsollama.",
                "Run the same command again.",
            )
        plan = _with_names(plan, store, digest)
        _register(plan, store, digest)
        _name_in_ledger(plan, store, digest)
        _unname_elsewhere(plan, store, digest)
    return plan


def _with_names(plan: InstallPlan, store: Store, digest: str) -> InstallPlan:
    """Look at the store's names once more, under its lock: hours may lie between plan and end.

    Raises:
        NameTakenError: a name has become another model's.
    """
    plan = replace(plan, models=spell_for_store(plan.models, store).models)
    require_agreed(replaced_in_store(plan, store, digest), plan.replaces)
    return plan


@contextmanager
def _taken_back_on_failure(
    plan: InstallPlan, store: Store, digest: str, merged: Path
) -> Iterator[None]:
    """Leave the store as it was, with the blob back in staging, if its names cannot be written."""
    blob = store.blob_path(digest)
    had_blob = blob.exists()
    made = [store.blob_path(each.digest) for model in plan.models for each in model.small]
    made += [store.blob_path(model.config.digest) for model in plan.models]
    made += [store.modelfile_path(model.name) for model in plan.models]
    made += [store.ledger.path(digest)]
    made = [path for path in made if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if blob.exists() and not had_blob:
                blob.replace(merged)
            for path in made:
                path.unlink(missing_ok=True)
        raise


def _register(plan: InstallPlan, store: Store, digest: str) -> None:
    """Small layers and Modelfiles first, the manifests last."""
    store.clear_temporary()
    manifests = {}
    for model in plan.models:
        for layer in (model.config, *model.small):
            store.put_blob(layer.digest, layer.data)
        text = replace(model.modelfile, base=str(store.blob_path(digest))).render()
        store.write_modelfile(model.name, text)
        weights = layer_entry(MODEL, digest, plan.size)
        manifests[model.name] = manifest_bytes(model.config, weights, model.small)
    store.put_manifests(manifests)


def _name_in_ledger(plan: InstallPlan, store: Store, digest: str) -> None:
    entry = store.ledger.read(digest)
    if entry is not None:
        names = {*entry.names, *names_of(plan)}
        store.ledger.write(digest, structs.replace(entry, names=tuple(sorted(names))))


def _unname_elsewhere(plan: InstallPlan, store: Store, digest: str) -> None:
    """Forget that a name which was replaced had other weights: `verify` would give them back."""
    names = set(names_of(plan))
    for other, entry in store.ledger.entries():
        if other != digest and not names.isdisjoint(entry.names):
            left = tuple(each for each in entry.names if each not in names)
            with suppress(StoreError):  # the models are installed, whatever the ledger says
                store.ledger.write(other, structs.replace(entry, names=left))


def _ledger_entry(plan: InstallPlan, prefixes: tuple[str, ...]) -> Entry:
    names = tuple(sorted(names_of(plan)))
    installed = datetime.now(UTC).isoformat(timespec="seconds")
    spans = plan.layout.pieces if plan.layout else staged_pieces(plan)
    return Entry(
        size=plan.size,
        endpoint=plan.endpoint,
        repository=plan.repository,
        commit=plan.commit,
        quant=plan.quant,
        sources=tuple(
            Source(each.path, each.size, each.sha256 if each.published else None)
            for each in plan.shards
        ),
        spans=tuple(Span(each.shard, each.source, each.target, each.size) for each in spans),
        block=BLOCK_BYTES,
        prefixes=prefixes,
        names=names,
        installed=installed,
        dsollama=__version__,
        folder=os.fsencode(plan.folder or "").decode("utf-8", "replace"),
    )
