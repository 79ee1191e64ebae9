"""The merged file that waits for its upload: a blob of the staging folder without a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsollama.errors import InterruptedByUserError, NotEnoughDiskError, StoreNotWritableError
from dsollama.events import Listener
from dsollama.install.build import Made, make
from dsollama.install.merged_file import MergedFile
from dsollama.install.plan import InstallPlan
from dsollama.install.recheck import note_right
from dsollama.install.register import keep
from dsollama.install.staging import remove_leftovers
from dsollama.store.files import remove_if_empty
from dsollama.store.store import Store
from dsollama.store.uploading import uploading


@contextmanager
def held_for_upload(store: Store) -> Iterator[Callable[[], bool]]:
    """Keep `gc` away from what waits in a staging folder, inside the block.

    Yields:
        Whether no other process uploads from there.

    Raises:
        InterruptedByUserError: Ctrl-C.
        StoreError: the folder cannot be used; the hint says how to give another one.
    """
    try:
        with uploading(store) as alone:
            yield alone
    except (NotEnoughDiskError, StoreNotWritableError) as error:
        error.hint = f"The merged file waits in {store.root}: give --staging another folder."
        raise
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            "Stopped.",
            "Run the same command again: what was downloaded is kept, an upload begins again.",
        ) from error


def make_waiting(plan: InstallPlan, store: Store, listener: Listener, connections: int) -> Made:
    """Have the merged file as a blob of the staging folder, which no name uses.

    Raises:
        DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
    """

    def keep_it(staging: Path, merged: MergedFile) -> None:
        keep(plan, store, staging, merged)

    made = make(plan, store, keep_it, listener, connections)
    if made.was_there:
        remove_leftovers(store, plan.key)
    note_right(store, made.digest)
    return made


def forget_waiting(store: Store, digest: str) -> None:
    """Delete the merged file, which the server has now."""
    if not store.root.exists():
        return
    with store.changing():
        blob = store.blob_path(digest)
        blob.unlink(missing_ok=True)
        store.ledger.remove(digest)
        own = (store.own / name for name in ("staging", "tmp", "ledger"))
        for folder in (blob.parent, *own):
            remove_if_empty(folder)
