"""Removing models: their names first, then what no other name of the store needs.

A crash at any moment leaves every remaining model whole: a manifest is gone, durably, before the
first of its blobs goes. What is left over then is found by `store.garbage`, or by the same removal
run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from dsollama.errors import NotInstalledError
from dsollama.manifest.names import ModelName
from dsollama.store.files import store_failures, sync_folder
from dsollama.store.manifests import ManifestFile, named, read_manifests, unreadable, users
from dsollama.store.registering import needed
from dsollama.store.spelling import same_name
from dsollama.store.store import Store
from dsollama.store.unfinished import Removal, read_removals, write_removal
from dsollama.store.walk import disk_bytes, is_own_folder, look, printable
from dsollama.units import some_of


@dataclass(frozen=True)
class FreedBlob:
    """A blob that goes; `bytes` of the disk become free."""

    digest: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class KeptBlob:
    """A blob of a removed model that stays.

    Attributes:
        digest: `sha256:HEX`.
        bytes: on the disk.
        users: the names, or files, that need it; empty where `why` is another reason.
        why: the reason, as the rest of a sentence.
    """

    digest: str
    bytes: int
    users: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class RemovePlan:
    """Everything that a removal does.

    Attributes:
        store: where.
        names: the names that go.
        manifests: their files.
        blobs: the blobs that go.
        kept: those that these names used and that stay.
        unreadable: manifests that stay and cannot be read; while there is one, no blob goes.
        modelfiles: dsollama's copies that go.
        ledger: per blob what its ledger entry's names become; None where the entry goes.
        records: what an earlier, interrupted removal of these names left; they go last.
    """

    store: Path
    names: tuple[str, ...]
    manifests: tuple[Path, ...]
    blobs: tuple[FreedBlob, ...]
    kept: tuple[KeptBlob, ...]
    unreadable: tuple[ManifestFile, ...]
    modelfiles: tuple[Path, ...]
    ledger: Mapping[str, tuple[str, ...] | None]
    records: tuple[Path, ...]

    @property
    def freed(self) -> int:
        """Bytes of the disk that become free."""
        return sum(blob.bytes for blob in self.blobs)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "store": printable(self.store),
            "names": list(self.names),
            "freed": self.freed,
            "blobs": [{**vars(blob), "path": printable(blob.path)} for blob in self.blobs],
            "kept": [{**vars(blob), "users": list(blob.users)} for blob in self.kept],
            "unreadable": [each.to_json() for each in self.unreadable],
            "manifests": [printable(path) for path in self.manifests],
            "modelfiles": [printable(path) for path in self.modelfiles],
        }


def plan_removal(
    store: Store, names: Sequence[ModelName], *, all_variants: bool = False
) -> RemovePlan:
    """Plan the removal of `names`; nothing is changed.

    Args:
        store: where.
        names: models; as for Ollama, letter case matters only between two of them.
        all_variants: also every other name with the same weights.

    Raises:
        NotInstalledError: the store has no such name, and no removal of it was interrupted.
    """
    manifests = read_manifests(store.root)
    records = {
        path: removal
        for path, removal in read_removals(store).items()
        if not {str(name) for name in names}.isdisjoint(removal.names)
    }
    left = frozenset(digest for each in records.values() for digest in each.digests)
    going = _chosen(store, manifests, records.values(), names)
    if all_variants:
        weights = left.union(*(each.weights for each in going.values()))
        going |= {each.path: each for each in manifests if each.weights & weights}
    staying = [each for each in manifests if each.path not in going]
    digests = left.union(*(each.digests for each in going.values()))
    blobs, kept = _blobs(store, sorted(digests), staying)
    full = {each.name for each in going.values() if each.name is not None}
    found = {each.folded for each in full}
    full |= {each for each in names if each.folded not in found}  # gone already
    shown = tuple(sorted(map(str, full)))
    return RemovePlan(
        store=store.root,
        names=shown,
        manifests=tuple(sorted(going)),
        blobs=blobs,
        kept=kept,
        unreadable=unreadable(staying),
        modelfiles=tuple(sorted(path for each in full for path in _modelfile(store, each))),
        ledger=_ledger(store, digests, {blob.digest for blob in kept}, shown),
        records=tuple(sorted(records)),
    )


def remove(store: Store, names: Sequence[ModelName], *, all_variants: bool = False) -> RemovePlan:
    """Remove models, holding the store's lock, and return what was done.

    Arguments and NotInstalledError as in `plan_removal`, which is asked again under the lock.

    Raises:
        StoreBusyError: another dsollama is changing the store.
        StoreError: something cannot be deleted; the same removal can then be run again.
    """
    store.require_writable()
    with store.changing():
        plan = plan_removal(store, names, all_variants=all_variants)
        digests = {each.digest for each in plan.blobs}
        if plan.unreadable:  # then later, by gc
            digests = {each.digest for each in plan.kept if not each.users}
        record = [write_removal(store, plan.names, digests)] if digests else []
        delete_files(plan.manifests, store.root / "manifests")
        plan = _still_unnamed(plan)
        delete_files((blob.path for blob in plan.blobs), store.root / "blobs")
        delete_files(plan.modelfiles, store.own / "modelfiles")
        _update_ledger(store, plan.ledger)
        if not plan.unreadable:
            delete_files((*plan.records, *record), store.own)
    return plan


class Deletion:
    """Deletes files one by one, and makes that durable for all of them at once."""

    def __init__(self) -> None:
        self._folders: set[Path] = set()

    def delete(self, path: Path, top: Path) -> None:
        """Delete a file, and the folders above it that become empty, but not `top`.

        Raises:
            StoreError: it cannot be deleted.
        """
        with store_failures(path):
            path.unlink(missing_ok=True)
            folder = path.parent
            while folder != top and _removed(folder):
                folder = folder.parent
        self._folders.add(folder)

    def sync(self) -> None:
        """Make what was deleted durable.

        Raises:
            StoreError: the disk refused.
        """
        for folder in self._folders:
            with store_failures(folder), suppress(FileNotFoundError):  # it has become empty, too
                sync_folder(folder)
        self._folders.clear()


def delete_files(paths: Iterable[Path], top: Path) -> None:
    """Delete files, and the folders above them that become empty, but not `top`; durably.

    Raises:
        StoreError: one cannot be deleted.
    """
    deletion = Deletion()
    for path in paths:
        deletion.delete(path, top)
    deletion.sync()


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # not empty, or another program was faster
        return not folder.exists()
    return True


def _chosen(
    store: Store,
    manifests: Sequence[ManifestFile],
    interrupted: Iterable[Removal],
    names: Sequence[ModelName],
) -> dict[Path, ManifestFile]:
    """Return the manifests of `names`; one whose removal was interrupted may be gone already."""
    going = {}
    existing = [each.name for each in manifests if each.name is not None]
    for name in names:
        meant = same_name(name, existing)
        same = [each for each in manifests if each.name in meant]
        if len(same) == 1:
            going[same[0].path] = same[0]
        elif not any(str(name) in each.names for each in interrupted):
            known = some_of([each.shown for each in manifests if each.name is not None])
            raise NotInstalledError(
                f"The store {store.root} has no model {name}.",
                f"It has {known or 'no model at all'}.",
            )
    return going


def _blobs(
    store: Store, digests: Sequence[str], staying: Sequence[ManifestFile]
) -> tuple[tuple[FreedBlob, ...], tuple[KeptBlob, ...]]:
    """Return which of the blobs go and which stay; those that are not there do neither."""
    used, pending = users(staying, digests), needed(store)
    blocked = bool(unreadable(staying))
    own = is_own_folder(store.root, "blobs")
    going, kept = [], []
    for digest in digests:
        seen = look(store.blob_path(digest))
        if seen.status is None:
            continue
        if digest in used:
            why = f"is used by {some_of(used[digest])}"
        elif digest in pending:
            why = "is needed by a registration that was killed and is not finished"
        elif blocked:
            why = "may be used by a manifest that cannot be read"
        else:
            why = seen.problem if own else "lies behind a symbolic link"
        if why:
            by = tuple(used.get(digest, ()))
            kept.append(KeptBlob(digest, seen.status.st_blocks * 512, by, why))
        else:
            going.append(FreedBlob(digest, seen.path, disk_bytes(seen.status)))
    return tuple(going), tuple(kept)


def _still_unnamed(plan: RemovePlan) -> RemovePlan:
    """Look once more, now that the manifests are gone: Ollama knows nothing of our lock."""
    now = read_manifests(plan.store)
    if unreadable(now):
        return replace(plan, blobs=(), unreadable=unreadable(now))
    used = {*named(now), *needed(Store(plan.store))}
    return replace(plan, blobs=tuple(each for each in plan.blobs if each.digest not in used))


def _modelfile(store: Store, name: ModelName) -> Iterable[Path]:
    folders = (".dsollama", "modelfiles", *name.path.parts)
    path = store.root.joinpath(*folders)
    seen = look(path)
    if is_own_folder(store.root, *folders[:-1]) and seen.status is not None and not seen.problem:
        yield path


def _ledger(
    store: Store, digests: Iterable[str], kept: Collection[str], names: Collection[str]
) -> dict[str, tuple[str, ...] | None]:
    """Return what the ledger's entries of `digests` become without `names`."""
    changes: dict[str, tuple[str, ...] | None] = {}
    if not is_own_folder(store.root, ".dsollama", "ledger"):
        return changes
    for digest in sorted(store.ledger.among(digests)):
        entry = store.ledger.read(digest) if digest in kept else None
        if digest not in kept:
            changes[digest] = None
        elif entry is not None and not set(names).isdisjoint(entry.names):
            changes[digest] = tuple(each for each in entry.names if each not in names)
    return changes


def _update_ledger(store: Store, changes: Mapping[str, tuple[str, ...] | None]) -> None:
    for digest, names in changes.items():
        entry = store.ledger.read(digest)
        if names is None and not look(store.blob_path(digest)).there:
            store.ledger.remove(digest)
        elif names is not None and entry is not None:
            store.ledger.write(digest, structs.replace(entry, names=names))
