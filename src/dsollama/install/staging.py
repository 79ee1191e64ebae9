"""The folder in which one install keeps its bytes until they are a model, and its lock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from dsollama.errors import NoLocksError, StoreBusyError
from dsollama.store.files import make_folder, remove_if_empty, store_failures
from dsollama.store.locks import take_lock
from dsollama.store.store import Store
from dsollama.transfer.journal import clear_claims, has_claims
from dsollama.transfer.padding import put_back_published
from dsollama.transfer.staged import StagedFile

MERGED = "merged.gguf"
LOCK_TRIES, LOCK_SECONDS = 20, 1.0
"""A `dsollama gc` that looks around holds the lock of an install for a moment."""


@contextmanager
def locked_staging(store: Store, key: str) -> Iterator[Path]:
    """Lock the install's folder; afterwards keep it only if it holds claimed bytes."""
    folder = store.staging(key)
    existed = {each for each in (store.root, *_folders(store.root)) if each.exists()}
    try:
        with store_failures(folder):
            lock = _locked(folder)
    except NoLocksError:
        for each in (folder, folder.parent, store.own):
            remove_if_empty(each)
        raise
    try:
        yield folder
    finally:
        if not has_claims(folder):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        remove_if_empty(folder)
        remove_if_empty(folder.parent)
        # Others come by way of the store's lock, and may be about to write into these.
        if not (store.own / "lock").exists():
            for each in (store.own / "tmp", *_folders(store.root), store.root):
                if each not in existed:
                    remove_if_empty(each)


def remove_leftovers(store: Store, key: str) -> None:
    """Remove the staging folder of an install that was killed just before its end."""
    if store.staging(key).exists():
        with suppress(StoreBusyError), locked_staging(store, key) as staging:
            clear_claims(staging)


def _locked(folder: Path) -> FileLock:
    """Make an install's folder and lock it; an ending install or a gc may just take it away."""
    for _ in range(LOCK_TRIES):
        with suppress(FileNotFoundError):
            make_folder(folder)
            lock = take_lock(folder / "lock", LOCK_SECONDS)
            if lock is None:
                break
            return lock
    raise StoreBusyError(
        "Another dsollama is installing this very model into this store.",
        "Wait for it to finish; then this command has nothing left to download.",
    )


def _folders(root: Path) -> tuple[Path, ...]:
    return (root / ".dsollama", root / "blobs", root / "manifests")


def prepare_merged(staging: Path, size: int, head: bytes, *, reserve: bool) -> None:
    """Give the merged file its room and its first bytes; without a file no claim holds.

    Args:
        staging: the install's folder.
        size: bytes of the merged file.
        head: its first bytes.
        reserve: whether the room is taken now.

    Raises:
        StoreError: it cannot be made.
    """
    file = staging / MERGED
    if not file.exists():
        clear_claims(staging)
    put_back_published(file, staging)
    with closing(StagedFile(file)) as staged:
        staged.resize(size, reserve=reserve)
        staged.write(memoryview(head), 0, direct=False)
