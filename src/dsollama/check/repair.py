"""Mending a blob in place: the bad blocks alone, and only where that makes the whole blob right.

The ledger's prefixes are believed for finding a bad block, but not for writing: they hang together
with the blob's name only at its end. So fetched blocks wait in an unnamed file beside the blobs
until the digest of everything came out as the name says. Only blocks behind the end of a blob that
was cut off go to their place at once: there is no byte that they could make worse.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from dsollama.check.findings import Range
from dsollama.check.reading import drop_cache
from dsollama.check.sources import BlobSource
from dsollama.errors import NotEnoughDiskError, ShardError, StoreBusyError, StoreNotWritableError
from dsollama.events import Listener, Noted
from dsollama.store.files import make_folder, remove_if_empty, store_failures
from dsollama.store.locks import take_lock
from dsollama.store.store import Store
from dsollama.units import format_bytes

_COPY_BYTES = 2**20


@dataclass(frozen=True)
class _Patch:
    """A right block that waits at `offset` of the scratch file, or is in its place (None)."""

    block: Range
    offset: int | None


class Repair:
    """The repair of one blob; use as a context manager.

    Attributes:
        refused: why the last block could not be mended; empty where it could.
    """

    def __init__(
        self,
        store: Store,
        digest: str,
        actual: int,
        source: BlobSource | None,
        listener: Listener,
        moved: Callable[[int], None],
    ) -> None:
        """Prepare to mend a blob of `actual` bytes from `source`; touches nothing yet.

        `moved` hears how many bytes came that the blob did not have.
        """
        self._store = store
        self._digest = digest
        self._path = store.blob_path(digest)
        self._actual = actual
        self._source = source
        self._listener = listener
        self._moved = moved
        self._patches: list[_Patch] = []
        self._stack = contextlib.ExitStack()
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._applied = False
        self._told_end = False
        self.refused = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._trim()
        finally:
            self._stack.close()

    @property
    def mended(self) -> tuple[Range, ...]:
        """The blocks that were mended, in order."""
        return tuple(patch.block for patch in self._patches)

    @property
    def fetched(self) -> int:
        """Bytes that came from the Hub, those for rebuilding the header included."""
        return self._source.fetched if self._source else 0

    def mend(self, block: Range, before: hashlib._Hash, prefix: str) -> hashlib._Hash | None:
        """Fetch or rebuild `block`; keep it if it takes the digest from `before` to `prefix`.

        Raises:
            HubError: the Hub does not give it.
            StoreError: the store has no room, is not writable, or is being repaired already.
        """
        if self._source is None:
            return None
        self._note(block)
        blob, scratch = self._open()
        if block.size > self._store.free_bytes():
            raise NotEnoughDiskError(
                f"The repair needs {format_bytes(block.size)} and {self._store.root} has less free."
            )
        tail = self._is_tail(block)
        out, offset = (blob, block.start) if tail else (scratch, scratch.seek(0, os.SEEK_END))
        digest = before.copy()
        try:
            self._take(block, digest, out, offset)
        except ShardError as error:
            self.refused = str(error)
            return None
        if digest.hexdigest() != prefix:
            self.refused = "the Hub sends other bytes than those that were installed."
            return None
        self._patches.append(_Patch(block, None if tail else offset))
        return digest

    def apply(self, size: int) -> None:
        """Write the mended blocks to their places and give the blob `size` bytes, durably.

        Raises:
            StoreError: it cannot be written, or the disk does not give back what was written.
        """
        blob, scratch = self._open()
        self._applied = True
        with store_failures(self._path):
            for patch in self._patches:
                if patch.offset is not None:
                    _copy(scratch, patch.offset, blob, patch.block)
            blob.truncate(size)
            blob.flush()
            os.fsync(blob.fileno())
            for patch in self._patches:
                drop_cache(blob.fileno(), patch.block.start, patch.block.size)
                same = patch.offset is None or _same(scratch, patch.offset, blob, patch.block)
                drop_cache(blob.fileno(), patch.block.start, patch.block.size)
                if not same:
                    raise StoreNotWritableError(
                        f"The disk does not give back what was written to {self._path}.",
                        "It may be failing: look at the kernel's log, and move the store.",
                    )

    def undo(self) -> None:
        """Forget the blocks of a blob that did not come out right, and those behind its end too.

        Raises:
            StoreError: the blob cannot be cut to its former size.
        """
        self._patches.clear()
        self._trim()

    def _trim(self) -> None:
        """Cut off what is neither the blob's own nor a block that has its prefix."""
        if self._files and not self._applied:
            tails = [patch.block.end for patch in self._patches if patch.offset is None]
            with store_failures(self._path):
                self._files[0].truncate(max([self._actual, *tails]))

    def _is_tail(self, block: Range) -> bool:
        return block.start >= self._actual

    def _note(self, block: Range) -> None:
        """Say what is fetched; the end of a blob that was cut off is said once."""
        if block.end <= self._actual:
            what = f"bytes {block.start} to {block.end} are damaged"
        elif self._told_end:
            return
        else:
            self._told_end = True
            what = f"what comes behind byte {self._actual} is missing"
        self._listener(Noted(f"{self._digest[7:19]}: {what}, getting it again"))

    def _take(self, block: Range, digest: hashlib._Hash, out: BinaryIO, offset: int) -> None:
        assert self._source is not None  # noqa: S101 - the caller has looked
        for chunk in self._source.stream(block):
            digest.update(chunk)
            with store_failures(self._path):
                out.seek(offset)
                out.write(chunk)
            offset += len(chunk)
            if self._is_tail(block):
                self._moved(len(chunk))
        with store_failures(self._path):
            out.flush()

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """Return the blob to be written and the scratch file; the first time, lock both."""
        if self._files is None:
            folder = self._store.own / "repair"
            make_folder(folder)
            self._stack.callback(remove_if_empty, folder)
            self._lock(folder / f"{self._digest.removeprefix('sha256:')}.lock")
            with store_failures(self._path):
                blob = self._stack.enter_context(self._path.open("r+b"))
                unnamed = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
                scratch = self._stack.enter_context(unnamed)
                size = os.fstat(blob.fileno()).st_size
            if size != self._actual:  # another repair was quicker
                raise _busy(self._path)
            self._files = (blob, scratch)
        return self._files

    def _lock(self, path: Path) -> None:
        with store_failures(path):
            lock = take_lock(path, 0)
        if lock is None:
            raise _busy(self._path)
        self._stack.callback(lock.release)
        self._stack.callback(path.unlink, missing_ok=True)


def _busy(path: Path) -> StoreBusyError:
    return StoreBusyError(
        f"Another dsollama is repairing {path.name}.", "Run the same command when it has finished."
    )


def _copy(scratch: BinaryIO, offset: int, blob: BinaryIO, block: Range) -> None:
    scratch.seek(offset)
    blob.seek(block.start)
    left = block.size
    while left:
        left -= blob.write(scratch.read(min(left, _COPY_BYTES)))


def _same(scratch: BinaryIO, offset: int, blob: BinaryIO, block: Range) -> bool:
    """Whether the blob's bytes, from the disk itself, are those of the scratch file."""
    for at in range(0, block.size, _COPY_BYTES):
        size = min(_COPY_BYTES, block.size - at)
        written = os.pread(blob.fileno(), size, block.start + at)
        if written != os.pread(scratch.fileno(), size, offset + at):
            return False
    return True
