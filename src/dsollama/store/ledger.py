"""What dsollama put into a store, and from where: one JSON per blob, `ledger/HEX.json`.

The ledger is believed for what it is worth: it helps to find, to compare and to repair. What a
blob holds is decided by its digest alone. Another store's ledger is not believed at all
(`install.from_store`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import structs

from dsollama.addresses import public_address
from dsollama.span import Count, Span
from dsollama.store.files import read_small, store_failures, write_atomically
from dsollama.store.walk import MAX_SEEN, list_names

NO_COMMIT = "0" * 40
"""Stands for the commit of files that no Hub has listed."""

MAX_ENTRY_BYTES = 4 * 2**20
"""The largest honest one is that of a 671B model in BF16: 20,000 prefixes and some 1,100 files at
most have 2 MB."""

MAX_ENTRIES = 10_000
"""How many are looked at; a store has one for each quant that was installed."""

MAX_READ_BYTES = 256 * 2**20
"""Of all entries together that one command reads; then there are none any more."""

_MAX_FILES, _MAX_NAMES, _MAX_PREFIXES = 2**12, 2**10, 2**18
_VERSION = 2

Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=4096)]


Short = Annotated[str, msgspec.Meta(max_length=256)]


class LedgerFile(msgspec.Struct, frozen=True, gc=False):
    """One file that the blob was made of.

    Attributes:
        path: in the repository.
        size: bytes.
        sha256: as the Hub published it; None where no published digest was compared with.
    """

    path: Text
    size: Count
    sha256: Hex | None


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one blob.

    Attributes:
        size: bytes of the blob.
        endpoint: the Hub that it came from, without a login; empty where no Hub has listed its
            files.
        repository: OWNER/REPO.
        commit: full hash of the commit; NO_COMMIT where no Hub has listed its files.
        quant: label as the repository writes it.
        sources: the files, in order.
        spans: where the blob's bytes come from; what no span covers is the merged header, or
            zero padding.
        block: bytes of a block.
        prefixes: SHA-256 of the blob's first 1, 2, 3... blocks, the last one of the whole blob;
            they find a damaged block without another digest of everything.
        names: the models that were registered with it, in Ollama's shortest form.
        installed: when, ISO 8601 in UTC.
        dsollama: which version wrote this.
        folder: the folder or the other store that its files were copied from, where no Hub has
            listed them.
        seen: what the blob's file was (`store.files.stamp_of`) when all its bytes had been
            digested last; empty where that is not known.
    """

    size: Count
    endpoint: Text
    repository: Short
    commit: Commit
    quant: Short
    sources: Annotated[tuple[LedgerFile, ...], msgspec.Meta(max_length=_MAX_FILES)]
    spans: Annotated[tuple[Span, ...], msgspec.Meta(max_length=_MAX_FILES)]
    block: Annotated[int, msgspec.Meta(gt=0)]
    prefixes: Annotated[tuple[Hex, ...], msgspec.Meta(max_length=_MAX_PREFIXES)]
    names: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_NAMES)]
    installed: Text
    dsollama: Text
    folder: Text = ""
    seen: Text = ""
    version: int = _VERSION

    def __post_init__(self) -> None:
        """Drop a login from the Hub's address: an earlier dsollama kept it."""
        structs.force_setattr(self, "endpoint", public_address(self.endpoint))

    @property
    def listed(self) -> bool:
        """Whether it came from a Hub, at a commit of it."""
        return bool(self.endpoint) and self.commit != NO_COMMIT

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Files that were compared with no published digest."""
        return tuple(each.path for each in self.sources if each.sha256 is None)


class Ledger:
    """The entries of one store; `folder` need not exist."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        """Keep the entries in `folder`, written by way of the folder `temporary`."""
        self._folder = folder
        self._temporary = temporary
        self._left = MAX_READ_BYTES
        self._last: tuple[object, LedgerEntry | None] = (None, None)

    def path(self, digest: str) -> Path:
        """Place of the entry of the blob `sha256:HEX`."""
        return self._folder / f"{digest.removeprefix('sha256:')}.json"

    def write(self, digest: str, entry: LedgerEntry) -> None:
        """Keep `entry`.

        Raises:
            StoreError: it cannot be written.
        """
        data = msgspec.json.format(msgspec.json.encode(entry), indent=1) + b"\n"
        write_atomically(self.path(digest), data, self._temporary / self.path(digest).name)

    def read(self, digest: str) -> LedgerEntry | None:
        """Return the entry of a blob; None where there is none that can be read."""
        path = self.path(digest)
        try:
            seen = _identity(path.lstat())
            if (path, seen) != self._last[0]:
                self._last = ((path, seen), self._read(path))
        except OSError:
            return None
        return self._last[1]

    def _read(self, path: Path) -> LedgerEntry | None:
        try:
            data = read_small(path, min(MAX_ENTRY_BYTES, self._left), follow=False)
            self._left -= len(data)
            entry = msgspec.json.decode(data, type=LedgerEntry)
        except (OSError, ValueError, RecursionError):  # msgspec's own are ValueErrors
            return None
        return entry if entry.version == _VERSION else None

    def remove(self, digest: str) -> None:
        """Forget a blob.

        Raises:
            StoreError: the entry is there and cannot be removed.
        """
        with store_failures(self.path(digest)):
            self.path(digest).unlink(missing_ok=True)

    def give(self, digest: str, names: Collection[str]) -> None:
        """Note that these names have the blob now, and no other: `verify` gives back what it says.

        Raises:
            StoreError: an entry cannot be written.
        """
        for other, entry in self.entries():  # one at a time: they may be large
            left = {*entry.names} - {*names}
            now = left | {*names} if other == digest else left
            if now != {*entry.names}:
                self.write(other, structs.replace(entry, names=tuple(sorted(now))))

    def among(self, digests: Iterable[str]) -> set[str]:
        """Return those digests for which a file is there, readable or not."""
        wanted = set(digests)
        try:
            names = list_names(self._folder, MAX_SEEN)
        except OSError:
            return set()
        return wanted & {f"sha256:{name.removesuffix('.json')}" for name in names}

    def entries(self) -> Iterator[tuple[str, LedgerEntry]]:
        """Yield (`sha256:HEX`, entry) of all that can be read."""
        try:
            names = list_names(self._folder, MAX_ENTRIES)
        except OSError:
            return
        for name in names:
            digest = f"sha256:{name.removesuffix('.json')}"
            entry = self.read(digest) if name.endswith(".json") else None
            if entry is not None:
                yield digest, entry


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or exchanged."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
