"""Garbage of a store: what nothing needs any more, whose it is, and what may delete it.

Planning looks and changes nothing. Deleting plans again under the store's lock, and takes only
what was found both times.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from dsollama.store.files import remove_if_empty
from dsollama.store.finding import (
    GRACE_SECONDS,
    NOT_OURS,
    Finding,
    Kind,
    Sweep,
    age,
    entries,
    finding,
)
from dsollama.store.manifests import ManifestFile, read_manifests, unreadable
from dsollama.store.orphans import blob_garbage
from dsollama.store.remove import Deletion
from dsollama.store.stopped import delete_install, stopped_installs
from dsollama.store.store import DIGEST, Store
from dsollama.store.walk import is_own_folder, look, printable

MAX_FINDINGS = 10_000
"""Of one kind that are told, and deleted, at once; the same command again finds the next ones."""

MAX_INSTALLS = 1_000
"""Of installs that stopped: each is moved aside for good before it is deleted."""

MAX_LEFT_ALONE = 1_000
"""Of one kind that are told and may not be deleted: they must not hide the others."""

_MANIFEST_PARTS = 4


@dataclass(frozen=True)
class Garbage:
    """What was found in a store.

    Attributes:
        store: where.
        findings: up to MAX_FINDINGS and MAX_LEFT_ALONE of each kind.
        unreadable: manifests that cannot be read: they keep every blob.
        more: how many findings there are besides.
    """

    store: Path
    findings: tuple[Finding, ...]
    unreadable: tuple[ManifestFile, ...]
    more: int = 0

    def swept(self, *, everything: bool) -> tuple[Finding, ...]:
        """Return what would be deleted: our own, or `everything` that may be."""
        sweeps = {Sweep.OWN, Sweep.ALL} if everything else {Sweep.OWN}
        return tuple(each for each in self.findings if each.sweep in sweeps)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "store": printable(self.store),
            "freed_by_delete": freed(self.swept(everything=False)),
            "freed_by_delete_all": freed(self.swept(everything=True)),
            "findings": [each.to_json() for each in self.findings],
            "more_findings": self.more,
            "unreadable": [each.to_json() for each in self.unreadable],
        }


def freed(findings: Sequence[Finding]) -> int:
    """Return the bytes of the disk that deleting these frees."""
    return sum(each.bytes for each in findings)


def find_garbage(store: Store, claimed_bytes: Callable[[Path], int], now: float) -> Garbage:
    """Find all garbage of a store; nothing is changed.

    Args:
        store: where.
        claimed_bytes: how many bytes an install could go on from, given its staging folder
            (`install.journal.claimed_bytes`).
        now: seconds since 1970.
    """
    manifests = read_manifests(store.root)
    found = chain(
        blob_garbage(store, manifests, now),
        stopped_installs(store, claimed_bytes),
        _modelfiles(store),
        _ledger(store),
        _leftovers(store, now, blocked=bool(unreadable(manifests))),
    )
    findings, more = _first(found)
    return Garbage(store.root, findings, unreadable(manifests), more)


def delete_garbage(
    store: Store,
    chosen: Collection[Finding],
    claimed_bytes: Callable[[Path], int],
    now: float,
) -> tuple[Finding, ...]:
    """Delete what was chosen and is still garbage, holding the store's lock; return it.

    Args:
        store: where.
        chosen: of `find_garbage`.
        claimed_bytes: as for `find_garbage`.
        now: as for `find_garbage`.

    Raises:
        StoreBusyError: another dsollama is changing the store.
        StoreError: something cannot be deleted; what was deleted before it is gone.
    """
    wanted = {each.path: {each.sweep, Sweep.OWN} for each in chosen if each.sweep != Sweep.NEVER}
    store.require_writable()
    with store.changing():
        found = find_garbage(store, claimed_bytes, now).findings
        still = [each for each in found if each.sweep in wanted.get(each.path, ())]
        deleted = tuple(_deleted(store, still))
        _delete_empty_folders(store, "manifests")
        _delete_empty_folders(store, ".dsollama", "modelfiles")
    return deleted


def _first(found: Iterable[Finding]) -> tuple[tuple[Finding, ...], int]:
    """Return the first ones of each kind, and how many there are besides."""
    kept: list[Finding] = []
    counts: Counter[tuple[Kind, bool]] = Counter()
    more = 0
    for each in found:
        key = (each.kind, each.sweep is Sweep.NEVER)
        counts[key] += 1
        if counts[key] <= _most(each):
            kept.append(each)
        else:
            more += 1
    return tuple(kept), more


def _most(garbage: Finding) -> int:
    if garbage.sweep is Sweep.NEVER:
        return MAX_LEFT_ALONE
    return MAX_INSTALLS if garbage.kind is Kind.STAGING else MAX_FINDINGS


def _deleted(store: Store, garbage: Iterable[Finding]) -> Iterator[Finding]:
    """Delete findings, one kind durably before the next, and yield those that are gone."""
    for _, alike in groupby(garbage, lambda each: each.kind):
        deletion = Deletion()
        for each in alike:
            if each.kind is not Kind.STAGING:
                _delete(store, each, deletion)
                yield each
            elif delete_install(store, each.path):  # else an install has just begun to need it
                yield each
        deletion.sync()


def _delete(store: Store, garbage: Finding, deletion: Deletion) -> None:
    tops = {Kind.MODELFILE: "modelfiles", Kind.LEDGER: "ledger", Kind.LEFTOVER: ""}
    own = garbage.kind in tops
    deletion.delete(garbage.path, store.own / tops[garbage.kind] if own else garbage.path.parent)
    if garbage.kind is Kind.BLOB and is_own_folder(store.root, ".dsollama", "ledger"):
        store.ledger.remove(garbage.path.name.replace("-", ":"))


def _delete_empty_folders(store: Store, *parts: str) -> None:
    """Delete what a killed removal could leave between file and folder; Ollama does so, too."""
    if is_own_folder(store.root, *parts):
        top = store.root.joinpath(*parts)
        for folder, _, _ in os.walk(top, topdown=False):
            if Path(folder) != top:
                remove_if_empty(Path(folder))


def _modelfiles(store: Store) -> Iterator[Finding]:
    """Find dsollama's copies of Modelfiles whose model is gone."""
    for seen in entries(store, ".dsollama", "modelfiles"):
        if len(seen.parts) != _MANIFEST_PARTS:
            yield finding(Kind.MODELFILE, seen, NOT_OURS, Sweep.NEVER, ours=False)
        elif seen.problem or not look(store.root.joinpath("manifests", *seen.parts)).there:
            why = "its model is not in the store"
            yield finding(Kind.MODELFILE, seen, why, Sweep.OWN, ours=True)


def _ledger(store: Store) -> Iterator[Finding]:
    """Find entries of the ledger whose blob is gone."""
    for seen in entries(store, ".dsollama", "ledger"):
        digest = f"sha256:{seen.path.name.removesuffix('.json')}"
        if not DIGEST.fullmatch(digest) or seen.path != store.ledger.path(digest):
            yield finding(Kind.LEDGER, seen, NOT_OURS, Sweep.NEVER, ours=False)
        elif seen.problem or not look(store.blob_path(digest)).there:
            why = "its blob is not in the store"
            yield finding(Kind.LEDGER, seen, why, Sweep.OWN, ours=True)


def _leftovers(store: Store, now: float, *, blocked: bool) -> Iterator[Finding]:
    """Find what an interrupted write, removal or gc of dsollama's left; records come last."""
    for seen in entries(store, ".dsollama", "tmp"):
        young = age(seen, now) < GRACE_SECONDS
        why = "may be being written" if young else "was left by an interrupted write"
        sweep = Sweep.NEVER if young else Sweep.OWN
        yield finding(Kind.LEFTOVER, seen, why, sweep, ours=True)
    for seen in entries(store, ".dsollama", "removing"):
        why, sweep = "was left by an interrupted removal", Sweep.OWN
        if blocked and seen.path.suffix == ".json":
            why = "says what a removal is to free when every manifest can be read"
            sweep = Sweep.NEVER
        yield finding(Kind.LEFTOVER, seen, why, sweep, ours=True)
