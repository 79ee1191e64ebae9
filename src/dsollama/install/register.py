"""Giving names to a merged file, under the store's lock: the end of every install."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsollama.events import Listener, StepStarted
from dsollama.install.merged_file import MergedFile, ledger_entry
from dsollama.install.plan import InstallPlan
from dsollama.install.pruning import await_pruning, require_blob
from dsollama.install.registration import registration_of, small_layers_of
from dsollama.install.staging import MERGED, remove_leftovers
from dsollama.install.state import with_final_names
from dsollama.signals import uninterrupted
from dsollama.store.keeping import kept
from dsollama.store.registering import give_names, put_small_layers, written_down
from dsollama.store.store import Store
from dsollama.transfer.journal import clear_claims


def adopt(
    plan: InstallPlan, store: Store, staging: Path, merged: MergedFile, listener: Listener
) -> InstallPlan:
    """Make the merged file a blob and register it; return the plan with its final names.

    Raises:
        NameTakenError: a name has become another model's.
        InterruptedByUserError: a signal came meanwhile; it is all done.
        StoreError: something cannot be written; the store is as it was.
    """
    listener(StepStarted("register", ", ".join(plan.names)))
    file = staging / MERGED
    with store.changing(), uninterrupted(*_stopped(plan)):
        plan = with_final_names(plan, store, merged.digest)
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
    listener(StepStarted("register", ", ".join(plan.names)))
    remove_leftovers(store, plan.key)
    with store.changing():
        store.clear_temporary()
        with kept(store, digest) as put_back:
            await_pruning(plan, store, digest)
            put_back()
            require_blob(plan, store, digest)  # `dsollama remove` may be quicker, too
            with uninterrupted(*_stopped(plan)):
                plan = with_final_names(plan, store, digest)
                with _registered(plan, store, digest, put_back):
                    pass
    return plan


def _stopped(plan: InstallPlan) -> tuple[str, str]:
    return f"Stopped, but {' and '.join(plan.names)} are installed.", "Nothing is left to do."


@contextmanager
def _taken_back_on_failure(
    plan: InstallPlan, store: Store, digest: str, merged: Path
) -> Iterator[None]:
    """Leave the store as it was, with the blob back in staging, if its names cannot be written."""
    blob = store.blob_path(digest)
    had_blob = blob.exists()
    made = [store.blob_path(each.digest) for each in small_layers_of(plan)]
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
    registration = registration_of(plan, store, digest)
    with written_down(store, registration):
        yield
        give_names(store, registration)
        # Only now does nobody delete any more what the manifests name.
        put_back()
        put_small_layers(store, registration)
        require_blob(plan, store, digest)
