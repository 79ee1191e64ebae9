"""Locks by flock(2): of a store, of one install, of one repair. Who takes one changes the store.

Where the file system has no locks, nothing is changed: two dsollama at once could take a blob that
the other one has just named for garbage. filelock would go by the mere existence of a file there
(SoftFileLock), which a crash leaves for ever; so that is switched off.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dsollama.errors import NoLocksError
from dsollama.store.files import make_lock_file, store_failures

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock(2) answers where there are none: Lustre without `-o flock`, NFS whose lock service is
not there, file systems in user space."""


def file_lock(path: Path) -> FileLock:
    """Return the lock at `path`, whose file is made now.

    Raises:
        FileNotFoundError: its folder is not there, or is just being taken away.
        StoreNotWritableError: it cannot be made.
    """
    try:
        mode = make_lock_file(path)
    except FileNotFoundError:
        raise
    except OSError:
        with store_failures(path):
            raise
    return FileLock(path, mode=mode, fallback_to_soft=False)


def take_lock(path: Path, seconds: float) -> FileLock | None:
    """Make the lock's file if need be and take the lock; None where another process has it.

    Args:
        path: the lock's file.
        seconds: how long to wait for it.

    Raises:
        NoLocksError: the file system has no locks.
        FileNotFoundError, StoreNotWritableError: as `file_lock`.
    """
    there = os.path.lexists(path)
    lock = file_lock(path)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:  # an OSError, but not one of the disk's
        return None
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            if not there:
                with suppress(OSError):
                    path.unlink()
            raise NoLocksError(
                f"The file system of {path.parent} has no locks ({error.strerror})."
            ) from error
        with store_failures(path):
            raise
    return lock


def holder(path: Path) -> str:
    """Say who holds a lock, as the rest of a sentence; makes no file. Empty where nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError:
        return "an install is at work on it"
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return "an install may be at work on it: the file system has no locks to tell"
        return "an install is at work on it"
    finally:
        os.close(handle)
    return ""
