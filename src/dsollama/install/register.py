"""Giving names to a merged file, under the store's lock: the end of every install."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dsollama import __version__
from dsollama.errors import StoreBusyError
from dsollama.events import Listener, StepStarted
from dsollama.install.naming import spell_for_store
from dsollama.install.plan import InstallPlan
from dsollama.install.replacing import require_agreed
from dsollama.install.staging import MERGED, remove_leftovers
from dsollama.install.state import replaced_in_store
from dsollama.manifest.layers import MODEL, Layer, layer_entry, manifest_bytes
from dsollama.ollama.address import server_address
from dsollama.ollama.starting import await_start
from dsollama.signals import uninterrupted
from dsollama.store.keeping import kept
from dsollama.store.ledger import LedgerEntry, LedgerFile
from dsollama.store.manifests import named, read_manifests
from dsollama.store.registering import (
    Registration,
    give_names,
    plan_registration,
    put_small_layers,
    written_down,
)
from dsollama.store.store import Store
from dsollama.transfer.digests import BLOCK_BYTES
from dsollama.transfer.journal import clear_claims
from dsollama.transfer.padding import spans_without


@dataclass(frozen=True)
class MergedFile:
    """A finished, durable `merged.gguf` in the staging folder.

    `moved` bytes came from the Hub and `copied` from files of this machine; `zeros` stand where the
    shards have these bytes, by offset.
    """

    digest: str
    prefixes: tuple[str, ...]
    moved: int
    copied: int
    zeros: Mapping[int, bytes]


def names_of(plan: InstallPlan) -> tuple[str, ...]:
    """Return the names that the plan gives."""
    return tuple(str(model.name) for model in plan.models)


def adopt(
    plan: InstallPlan, store: Store, staging: Path, merged: MergedFile, listener: Listener
) -> InstallPlan:
    """Make the merged file a blob and register it; return the plan with its final names.

    Raises:
        NameTakenError: a name has become another model's.
        InterruptedByUserError: a signal came meanwhile; it is all done.
        StoreError: something cannot be written; the store is as it was.
    """
    listener(StepStarted("register", ", ".join(names_of(plan))))
    file = staging / MERGED
    with store.changing(), uninterrupted(*_stopped(plan)):
        plan = _with_names(plan, store, merged.digest)
        store.clear_temporary()
        # From here on the blob is nobody's until its manifests are there.
        with _taken_back_on_failure(plan, store, merged.digest, file):
            # The ledger first: killed behind it, a rerun finds the blob and only registers it.
            known = store.ledger.read(merged.digest)
            names = known.names if known else ()  # the new ones come when they are given
            store.ledger.write(merged.digest, ledger_entry(plan, merged, names))
            with _registered(plan, store, merged.digest, lambda: None):
                store.adopt_blob(merged.digest, file)
        clear_claims(staging)
    return plan


def keep(plan: InstallPlan, store: Store, staging: Path, merged: MergedFile) -> None:
    """Make the merged file a blob without a name: it waits for its upload.

    Raises:
        InterruptedByUserError: a signal came meanwhile; it is all done.
        StoreError: something cannot be written; the store is as it was.
    """
    stopped = "Stopped; the merged file is complete.", "Run the same command again to go on."
    with store.changing(), uninterrupted(*stopped):
        store.clear_temporary()
        file = staging / MERGED
        with _taken_back_on_failure(plan, store, merged.digest, file):
            known = store.ledger.read(merged.digest)
            names = known.names if known else ()
            store.ledger.write(merged.digest, ledger_entry(plan, merged, names))
            store.adopt_blob(merged.digest, file)
        clear_claims(staging)


def take_over(plan: InstallPlan, store: Store, digest: str, listener: Listener) -> InstallPlan:
    """Register a blob that the store has already; return the plan with its final names.

    Raises:
        NameTakenError: a name has become another model's.
        InterruptedByUserError: a signal came meanwhile; it is all done.
        StoreError: something cannot be written, or the blob is gone; the store is as it was.
    """
    listener(StepStarted("register", ", ".join(names_of(plan))))
    remove_leftovers(store, plan.key)
    with store.changing():
        store.clear_temporary()
        with kept(store, digest) as put_back:
            _await_pruning(plan, store, digest)
            put_back()
            _require_blob(plan, store, digest)  # `dsollama remove` may be quicker, too
            with uninterrupted(*_stopped(plan)):
                plan = _with_names(plan, store, digest)
                with _registered(plan, store, digest, put_back):
                    pass
    return plan


def _stopped(plan: InstallPlan) -> tuple[str, str]:
    return f"Stopped, but {' and '.join(names_of(plan))} are installed.", "Nothing is left to do."


def _await_pruning(plan: InstallPlan, store: Store, digest: str) -> None:
    """Let an Ollama that is just starting end its pruning; the next one finds the blob young.

    Raises:
        StoreBusyError: it does not end.
    """
    there = {each.digest for each in _small_layers(plan) if store.has_blob(each.digest, each.size)}
    if named(read_manifests(store.root)).issuperset({digest, *there}):
        return
    address = server_address(plan.ollama_host)
    if not await_start(address):
        raise StoreBusyError(
            f"The Ollama at {address} takes connections and does not answer; if it is starting, "
            "it deletes weights that have no name yet.",
            "Run the same command again when it answers, or when it is stopped.",
        )


def _require_blob(plan: InstallPlan, store: Store, digest: str) -> None:
    if not store.has_blob(digest, plan.size):
        raise StoreBusyError(
            "The model's weights have just been removed, by Ollama or another dsollama.",
            "Run the same command again: it downloads them.",
        )


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
    made = [store.blob_path(each.digest) for each in _small_layers(plan)]
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


@contextmanager
def _registered(
    plan: InstallPlan, store: Store, digest: str, put_back: Callable[[], None]
) -> Iterator[None]:
    """Write down what comes, let the block bring the weights, and write the names behind it.

    Raises:
        StoreError: something cannot be written, or was deleted meanwhile; no name has changed.
    """
    registration = _registration(plan, store, digest)
    with written_down(store, registration):
        yield
        give_names(store, registration)
        # Only now does nobody delete any more what the manifests name.
        put_back()
        put_small_layers(store, registration)
        _require_blob(plan, store, digest)


def _small_layers(plan: InstallPlan) -> list[Layer]:
    return [layer for model in plan.models for layer in (model.config, *model.small)]


def _registration(plan: InstallPlan, store: Store, digest: str) -> Registration:
    weights = layer_entry(MODEL, digest, plan.size)
    base = str(store.blob_path(digest))
    return plan_registration(
        store,
        digest,
        plan.size,
        {each.digest: each.data for each in _small_layers(plan)},
        {
            model.name: (
                manifest_bytes(model.config, weights, model.small),
                replace(model.modelfile, base=base).render(),
            )
            for model in plan.models
        },
    )


def ledger_entry(plan: InstallPlan, merged: MergedFile, names: tuple[str, ...]) -> LedgerEntry:
    """Return what the ledger keeps of the merged file: where it came from, as far as is proved."""
    installed = datetime.now(UTC).isoformat(timespec="seconds")
    spans = plan.spans
    return LedgerEntry(
        size=plan.size,
        endpoint=plan.endpoint,
        repository=plan.repository,
        commit=plan.commit,
        quant=plan.quant,
        sources=tuple(
            LedgerFile(each.path, each.size, each.sha256 if each.published else None)
            for each in plan.shards
        ),
        spans=tuple(spans_without(spans, merged.zeros)),
        block=BLOCK_BYTES,
        prefixes=merged.prefixes,
        names=names,
        installed=installed,
        dsollama=__version__,
        folder=os.fsencode(plan.folder or "").decode("utf-8", "replace"),
    )
