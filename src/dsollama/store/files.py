"""Writing into the store: always beside, then fsync, then rename."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dsollama.errors import NotEnoughDiskError, StoreNotWritableError
from dsollama.limits import limit_error
from dsollama.privileges import acting
from dsollama.store.ownership import (
    FILE_MODE,
    FOLDER_MODE,
    LOCK_MODE,
    hand_over,
    is_shared,
    made_mode,
)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def store_failures(place: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError about `place`, or a LimitError."""
    try:
        yield
    except OSError as error:
        limit = limit_error(error)
        if limit:
            raise limit from error
        if error.errno in _NO_SPACE:
            raise NotEnoughDiskError(
                f"The disk of {place} is full.", "Free some space and run the same command again."
            ) from error
        raise StoreNotWritableError(
            f"The store {place} cannot be written: {error.strerror or error}.", _way_out(place)
        ) from error


def _way_out(place: Path) -> str:
    me = acting()
    if me.uid == os.geteuid():
        return (
            "If Ollama runs as a service, its store belongs to the user `ollama`: run dsollama "
            "with sudo, or give --store / OLLAMA_MODELS a folder of your own."
        )
    return (
        f"Root works there as the store's owner, {me.name}, who may not do this. Look into "
        f"{place.parent} (`ls -la`): what is root's there, or no plain file, was left over or laid "
        "there; remove it."
    )


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents, as Ollama does (mode 0755); root makes them their parent's.

    Raises:
        StoreNotWritableError: it cannot be made.
    """
    with store_failures(folder):
        _make_folder(folder)


def open_new(path: Path, flags: int, mode: int | None = None) -> int:
    """Open a file, made if need be, and return its handle; it belongs to its folder's owner.

    A link in its place is not followed: whoever owns the folder could aim it at another's file. A
    pipe or a device in its place is refused, and not waited for.

    Args:
        path: the file.
        flags: of open(2); to create it is added.
        mode: as of `hand_over`.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, FILE_MODE if mode is None else mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads, or a socket
            raise _not_regular(path) from error
        raise
    try:
        _require_regular(handle, path)
        hand_over(handle, path.parent, mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_lock_file(path: Path) -> int:
    """Make the file of a lock if it is not there, for its owner alone, and return its mode.

    Whoever may open a lock's file, for reading too, could hold the lock for ever. In a folder that
    a group may write, the group may open it: it can change the store anyway. A file that an older
    dsollama made for everybody gets the mode of now.

    Raises:
        OSError: it cannot be made or opened.
    """
    os.close(open_new(path, os.O_RDWR, LOCK_MODE))
    return made_mode(path.parent.stat(), LOCK_MODE)


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
        with store_failures(path), _open_to_write(temporary) as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        place(temporary, path)
    finally:
        with suppress(OSError):  # a folder that refuses it has been told of above
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, temporary: Path) -> None:
    """Write `data` to `temporary` and rename it to `path`, without waiting for the disk.

    Raises:
        StoreError: it cannot be written; `path` is then as it was.
    """
    try:
        with store_failures(path):
            with _open_to_write(temporary) as out:
                out.write(data)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def place(source: Path, target: Path) -> None:
    """Rename a finished, durable file to its final place and make the rename durable."""
    with store_failures(target):
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # Ollama's service must read what another user installed, whatever his umask.
            hand_over(handle, target.parent, FILE_MODE)
        finally:
            os.close(handle)
        source.replace(target)
        sync_folder(target.parent)


def read_small(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """Return the bytes of a regular file, which is believed to have at most `limit` of them.

    Args:
        path: the file.
        limit: in bytes.
        follow: whether it may be a symbolic link.

    Raises:
        OSError: it is not there, not a regular file (a pipe or /dev/zero would never end), or
            larger (EFBIG).
    """
    handle = open_regular(path, 0 if follow else os.O_NOFOLLOW)
    with open(handle, "rb") as file:  # noqa: PTH123 - a handle, not a path
        found = os.fstat(handle)
        if found.st_size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(found.st_size)


def stamp_of(found: os.stat_result) -> str:
    """Return what tells a file from one that was changed or put in its place.

    Whoever changes a file can set its mtime, but not its ctime. The inode's number is left out:
    some file systems give a new one at every look.
    """
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def open_regular(path: Path, flags: int = 0) -> int:
    """Open a regular file for reading and return its handle; nothing else is waited for.

    Args:
        path: the file.
        flags: more of open(2).

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK a pipe would wait for its writer for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        _require_regular(handle, path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_regular(handle: int, path: Path) -> os.stat_result:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)
    return found


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file", str(path))


def _make_folder(folder: Path) -> None:
    try:
        _mkdir(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    except FileNotFoundError:
        _make_folder(folder.parent)
        _make_folder(folder)
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        hand_over(handle, folder.parent)
    finally:
        os.close(handle)


def _mkdir(folder: Path) -> None:
    """Make a folder; one that a group shares gets its mode at once.

    A chmod(2) by an owner who is not in the group would take away the set-group-id bit.
    """
    above = folder.parent.stat()
    if not is_shared(above):
        folder.mkdir(mode=FOLDER_MODE)
        return
    before = os.umask(0)
    try:
        folder.mkdir(mode=made_mode(above, FOLDER_MODE))
    finally:
        os.umask(before)


def _open_to_write(path: Path) -> BinaryIO:
    return os.fdopen(open_new(path, os.O_WRONLY | os.O_TRUNC), "wb")


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that nobody has anything in; else, or where that cannot be, let it be."""
    with suppress(OSError):
        folder.rmdir()


def disk_used(folder: Path) -> int:
    """Return the bytes of disk that the files of `folder` take; 0 where there is no folder."""
    try:
        return sum(each.lstat().st_blocks * 512 for each in folder.iterdir())
    except OSError:
        return 0
