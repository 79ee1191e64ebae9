"""What a removal under way takes away, written down before its first step.

A removal deletes manifests first and blobs last. One that is killed in between leaves blobs that
no manifest names, and only for weights does the ledger know whose they are. The record says it
for the small layers too, and lets the same command finish when it is run again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dsollama.manifest.manifest import Digest
from dsollama.store.files import read_small, write_atomically
from dsollama.store.store import Store
from dsollama.store.walk import is_own_folder, walk

MAX_RECORDS_BYTES = 4 * 2**20
"""Of all records together: to remove 20,000 models names 2 MB. What comes behind is not read; then
`gc` takes small layers for another's, and leaves them alone."""


class Removal(msgspec.Struct, frozen=True):
    """One removal: the names that were asked for, and the blobs that only they named."""

    names: tuple[str, ...]
    digests: tuple[Digest, ...]


def removals_folder(store: Store) -> Path:
    """Folder of the records, and of staging folders on their way out."""
    return store.own / "removing"


def write_removal(store: Store, names: Iterable[str], digests: Iterable[str]) -> Path:
    """Write a record and return its place.

    Raises:
        StoreError: it cannot be written.
    """
    removal = Removal(tuple(sorted(names)), tuple(sorted(digests)))
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    path = removals_folder(store) / f"{name}.json"
    write_atomically(path, msgspec.json.encode(removal) + b"\n", store.own / "tmp" / name)
    return path


def read_removals(store: Store) -> dict[Path, Removal]:
    """Return the records that earlier removals left; what cannot be read is left out."""
    found, left = {}, MAX_RECORDS_BYTES
    if is_own_folder(store.root, ".dsollama", "removing"):
        for seen in walk(removals_folder(store)):
            if not seen.problem and seen.path.suffix == ".json" and len(seen.parts) == 1:
                try:
                    data = read_small(seen.path, left, follow=False)
                    left -= len(data)
                    found[seen.path] = msgspec.json.decode(data, type=Removal)
                except (OSError, ValueError, RecursionError):
                    continue
    return found
