"""Garbage in `.dsollama/staging/`: installs that stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsollama.store.files import (
    make_folder,
    remove_if_empty,
    store_failures,
    sync_folder,
)
from dsollama.store.finding import NOT_OURS, Finding, Kind, Sweep, entries, finding
from dsollama.store.locks import holder, take_lock
from dsollama.store.store import Store
from dsollama.store.unfinished import removals_folder
from dsollama.store.walk import (
    MAX_SEEN,
    Seen,
    disk_bytes,
    is_own_folder,
    last_touched,
    list_names,
    look,
    printable,
    walk,
)
from dsollama.units import format_bytes

CONSUMED = "consumed"
"""Marks a folder that holds the only copy of shards which `install --consume` has deleted."""

MAX_INSTALLS, MAX_FILES = 20_000, 5_000
"""Folders that are looked at, and files in one: `llama-gguf-split` has one for each of up to 4,096
shards."""


def stopped_installs(store: Store, claimed_bytes: Callable[[Path], int]) -> Iterator[Finding]:
    """Find installs that stopped."""
    folder = store.own / "staging"
    if not is_own_folder(store.root, ".dsollama", "staging"):
        for seen in entries(store, ".dsollama", "staging"):
            yield finding(Kind.STAGING, seen, NOT_OURS, Sweep.NEVER, ours=False)
        return
    left = MAX_SEEN
    for path in _inside(folder):
        seen = look(path)
        if is_own_folder(folder, path.name):
            inside = _Inside.of(seen, walk(path, min(left, MAX_FILES)))
            left -= inside.count
            yield _install(path, inside, claimed_bytes)
        elif seen.there:
            yield finding(Kind.STAGING, seen, NOT_OURS, Sweep.NEVER, ours=False)


def delete_install(store: Store, folder: Path) -> bool:
    """Delete a staging folder; False, and nothing done, where an install uses it or just ended.

    It is moved aside first, so that no install ever finds half of it.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        lock = take_lock(folder / "lock", 0)
    except FileNotFoundError:
        return False
    if lock is None:
        return False
    with store_failures(folder):
        try:
            aside = removals_folder(store) / f"{folder.name}-{os.urandom(4).hex()}"
            make_folder(aside.parent)
            folder.rename(aside)
            with suppress(FileNotFoundError):  # another install, ending, took it away
                sync_folder(folder.parent)
            shutil.rmtree(aside)
            for each in (aside.parent, folder.parent):
                remove_if_empty(each)
        finally:
            lock.release()
    return True


def _inside(folder: Path) -> list[Path]:
    """What lies in the folder of all installs; the last of them takes it away when it ends."""
    with store_failures(folder):
        try:
            return [folder / name for name in list_names(folder, MAX_INSTALLS)]
        except FileNotFoundError:
            return []


@dataclass
class _Inside:
    """What one pass over the folder of an install tells.

    Attributes:
        touched: when it, or a file in it, was last changed, seconds since 1970.
        count: files.
        bytes: of the disk.
        odd: the first that is no plain file.
        consumed: whether it holds the only copy of shards.
    """

    touched: float
    count: int = 0
    bytes: int = 0
    odd: Seen | None = None
    consumed: bool = False

    @classmethod
    def of(cls, folder: Seen, files: Iterable[Seen]) -> _Inside:
        found = cls(last_touched(folder.status) if folder.status else 0.0)
        for each in files:
            found.count += 1
            if each.status is not None:
                found.touched = max(found.touched, last_touched(each.status))
                found.bytes += disk_bytes(each.status)
            if each.problem and found.odd is None:
                found.odd = each
            found.consumed |= each.path.name == CONSUMED
        return found


def _install(path: Path, inside: _Inside, claimed_bytes: Callable[[Path], int]) -> Finding:
    in_place = 0 if inside.odd else claimed_bytes(path)
    if inside.odd:
        where = f"{printable(Path(inside.odd.path.name))} in it" if inside.odd.parts else "it"
        why, sweep = f"{where} {inside.odd.problem}, so it is left alone", Sweep.NEVER
    elif held := holder(path / "lock"):
        why, sweep = held, Sweep.NEVER
    elif inside.consumed:
        why = (
            f"an install with --consume stopped with {format_bytes(in_place)} in place: the only "
            "copy of shards that it has deleted; the same install would go on from there"
        )
        sweep = Sweep.ALL
    elif not in_place:
        why, sweep = "an install stopped, and left nothing to go on from", Sweep.OWN
    else:
        why = (
            f"an install stopped with {format_bytes(in_place)} in place; the same install would "
            "go on from there"
        )
        sweep = Sweep.ALL  # however old: no clock can tell whether somebody wants it
    return Finding(Kind.STAGING, path, inside.bytes, why, True, inside.touched, sweep, in_place)
