"""Garbage in `.dsollama/staging/`: installs that stopped."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dsollama.store.files import (
    make_folder,
    make_lock_file,
    remove_if_empty,
    store_failures,
    sync_folder,
)
from dsollama.store.finding import NOT_OURS, Finding, Kind, Sweep, entries, finding
from dsollama.store.store import Store
from dsollama.store.unfinished import removals_folder
from dsollama.store.walk import Seen, disk_bytes, is_own_folder, last_touched, look, printable, walk
from dsollama.units import format_bytes

CONSUMED = "consumed"
"""Marks a folder that holds the only copy of shards which `install --consume` has deleted."""

RESUME_SECONDS = 7 * 24 * 3600.0
"""For so long an interrupted install is kept, unless all garbage is asked for."""


def stopped_installs(
    store: Store, claimed_bytes: Callable[[Path], int], now: float
) -> Iterator[Finding]:
    """Find installs that stopped."""
    folder = store.own / "staging"
    if not is_own_folder(store.root, ".dsollama", "staging"):
        for seen in entries(store, ".dsollama", "staging"):
            yield finding(Kind.STAGING, seen, NOT_OURS, Sweep.NEVER, ours=False)
        return
    for path in _inside(folder):
        seen = look(path)
        if is_own_folder(folder, path.name):
            yield _install(seen, list(walk(path)), claimed_bytes, now)
        elif seen.there:
            yield finding(Kind.STAGING, seen, NOT_OURS, Sweep.NEVER, ours=False)


def delete_install(store: Store, folder: Path) -> bool:
    """Delete a staging folder; False, and nothing done, where an install uses it or just ended.

    It is moved aside first, so that no install ever finds half of it.

    Raises:
        StoreError: it cannot be deleted.
    """
    with store_failures(folder):
        try:
            lock = FileLock(folder / "lock", mode=make_lock_file(folder / "lock"))
            lock.acquire(timeout=0)
        except (FileNotFoundError, Timeout):
            return False
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
            return sorted(folder.iterdir())
        except FileNotFoundError:
            return []


def _install(
    folder: Seen, inside: Sequence[Seen], claimed_bytes: Callable[[Path], int], now: float
) -> Finding:
    files = [each.status for each in inside if each.status is not None]
    touched = max(last_touched(each) for each in (*files, folder.status) if each is not None)
    size = sum(map(disk_bytes, files))
    odd = [each for each in inside if each.problem]
    in_place = 0 if odd else claimed_bytes(folder.path)
    if odd:
        name = printable(Path(odd[0].path.name))
        why, sweep = f"{name} in it {odd[0].problem}, so it is left alone", Sweep.NEVER
    elif _is_held(folder.path / "lock"):
        why, sweep = "an install is at work on it", Sweep.NEVER
    elif any(each.path.name == CONSUMED for each in inside):
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
        sweep = Sweep.OWN if now - touched > RESUME_SECONDS else Sweep.ALL
    return Finding(Kind.STAGING, folder.path, size, why, True, touched, sweep, in_place)


def _is_held(lock: Path) -> bool:
    """Whether another process holds the lock, or may; makes no lock file."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
