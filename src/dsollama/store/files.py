"""Writing into the store: always beside, then fsync, then rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsollama.errors import NotEnoughDiskError, StoreNotWritableError

BLOB_MODE = 0o644
"""Ollama's service runs as its own user and must read what another user installed."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def store_failures(place: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError about `place`."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NotEnoughDiskError(
                f"The disk of {place} is full.", "Free some space and run the same command again."
            ) from error
        raise StoreNotWritableError(
            f"The store {place} cannot be written: {error.strerror or error}.",
            "If Ollama runs as a service, its store belongs to the user `ollama`: run dsollama "
            "with sudo, or give --store / OLLAMA_MODELS a folder of your own.",
        ) from error


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, as Ollama does (mode 0755).

    Raises:
        StoreNotWritableError: it cannot be made.
    """
    with store_failures(folder):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes, temporary: Path) -> None:
    """Write `data` to `temporary`, make it durable and rename it to `path`.

    Args:
        path: the final place.
        data: all bytes.
        temporary: a free path on the same filesystem.

    Raises:
        StoreError: it cannot be written; `path` is then as it was.
    """
    make_folder(path.parent)
    make_folder(temporary.parent)
    try:
        with store_failures(path), temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def place(source: Path, target: Path) -> None:
    """Rename a finished, durable file to its final place and make the rename durable."""
    with store_failures(target):
        source.chmod(BLOB_MODE)
        source.replace(target)
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
