"""Whether the store's file system can hold a manifest of a name, asked before a download."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dsollama.errors import InvalidNameError, StoreNotWritableError
from dsollama.manifest.names import ModelName
from dsollama.store.store import Store
from dsollama.store.walk import printable


def require_place(store: Store, name: ModelName, hint: str) -> None:
    """Ask the file system whether the files of a name can be written; nothing is.

    Args:
        store: where.
        name: as it will be written.
        hint: what helps where they cannot.

    Raises:
        InvalidNameError: a part of the name, or its path, is longer than the file system takes.
        StoreNotWritableError: a file is where a folder must be, or a folder where a file must be;
            or a folder is not writable.
    """
    paths = (store.manifest_path(name), store.modelfile_path(name))
    for path in paths:
        _require_short(path, name, hint)
        found = _obstacle(path)
        if found is not None:
            raise StoreNotWritableError(
                f"The model {name} cannot be written: {printable(found)} is in its way.", hint
            )
    store.require_writable(*(each for path in paths for each in _last_folder(store, path)))


def _require_short(path: Path, name: ModelName, hint: str) -> None:
    """Let the file system compare every part with its limit, also below folders to be made."""
    folder = next(each for each in path.parents if each == each.parent or _is_folder(each))
    for each in (path, *(folder / part for part in path.parts)):
        try:
            each.lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidNameError(
                    f"The store's file system has no room for a name as long as {str(name)!r}.",
                    hint,
                ) from error


def _last_folder(store: Store, path: Path) -> Iterator[Path]:
    """Yield the folder of the store in which something has to be made for `path`, if any is."""
    folders = (each for each in path.parents if store.root in each.parents)
    yield from islice(filter(_is_folder, folders), 1)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - never raises


def _obstacle(path: Path) -> Path | None:
    """Return what stands where the name's folders go, or a folder that stands in its place."""
    for folder in reversed(path.parents[:3]):
        if os.path.lexists(folder) and not _is_folder(folder):
            return folder
    try:
        return path if stat.S_ISDIR(path.lstat().st_mode) else None
    except OSError:
        return None
