"""The lock of those who upload merged files from a store: gc leaves what they send.

Any number of them hold it together; gc only asks whether somebody does. The file stays: it says
that blobs without a name wait here for an upload.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

from dsollama.store.files import make_folder, make_lock_file, store_failures
from dsollama.store.store import Store


class Uploads(Enum):
    """What the lock says."""

    NEVER = auto()
    WAITING = auto()
    AT_WORK = auto()


@contextmanager
def uploading(store: Store) -> Iterator[Callable[[], bool]]:
    """Hold the lock inside the block.

    Yields:
        Whether nobody else holds it.

    Raises:
        StoreError: the lock cannot be made.
    """
    path = _path(store)
    make_folder(path.parent)
    with store_failures(path):
        make_lock_file(path)
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except BaseException:
            os.close(handle)
            raise
    try:
        yield lambda: _alone(handle)
    finally:
        os.close(handle)


def uploads(store: Store) -> Uploads:
    """Tell whether somebody uploads from a store; makes no lock file."""
    try:
        handle = os.open(_path(store), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return Uploads.NEVER
    except OSError:
        return Uploads.AT_WORK
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return Uploads.AT_WORK
    finally:
        os.close(handle)
    return Uploads.WAITING


def _alone(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # which may have let go of the lock, too
        alone = False
    else:
        alone = True
    fcntl.flock(handle, fcntl.LOCK_SH)
    return alone


def _path(store: Store) -> Path:
    return store.own / "uploading"
