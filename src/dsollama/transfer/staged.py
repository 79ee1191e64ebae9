"""The staging file: reserved at once, written in any order, past the page cache where it can be."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from dsollama.errors import CorruptShardError
from dsollama.store.files import open_new, store_failures

DIRECT_ALIGNMENT = 4096
"""What offset, length and memory of a direct write are multiples of; no common disk needs more."""

WRITE_BYTES = 2**17
"""Bytes of one write through the page cache. Larger ones make ext4 on Linux 6.18 look for large
folios, which cost six times the CPU where the kernel has to fetch fresh memory first (measured:
2.6 GB in writes of 128 KiB 0.5-0.7 s, of 1 MiB 2.1-3.7 s)."""

_O_DIRECT = getattr(os, "O_DIRECT", 0)
_NOT_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP)
_NOT_RESERVED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class StagedFile:
    """An open staging file; safe to use by threads."""

    def __init__(self, path: Path) -> None:
        """Open or make `path`.

        Raises:
            StoreError: it cannot be opened.
        """
        self.path = path
        with store_failures(path):
            if path.is_symlink():  # never write to what lies elsewhere
                path.unlink()
            self._handle = open_new(path, os.O_RDWR | os.O_NOFOLLOW)
        self._direct_handle = _open_direct(path)
        self._direct = self._direct_handle is not None

    def close(self) -> None:
        """Close it."""
        os.close(self._handle)
        if self._direct_handle is not None:
            os.close(self._direct_handle)

    def resize(self, size: int, *, reserve: bool = True) -> None:
        """Give the file its final size and, where the filesystem can, its room on the disk.

        A day's download then does not end in a disk that something else has filled.

        Args:
            size: in bytes.
            reserve: whether the room is taken now, or as bytes are written.

        Raises:
            NotEnoughDiskError: there is no room for it.
            StoreError: another failure of the disk.
        """
        with store_failures(self.path):
            os.ftruncate(self._handle, size)
            if size and reserve:
                _reserve(self._handle, size)

    def write(self, view: memoryview, offset: int, *, direct: bool) -> None:
        """Write all of `view` at `offset`.

        Args:
            view: the bytes; for a direct write their place in memory is aligned as `offset` is.
            offset: in bytes.
            direct: write past the page cache as far as alignment and filesystem allow. It costs a
                quarter of the CPU, leaves no dirty pages for the end, and pushes no model that is
                being served out of memory.

        Raises:
            StoreError: the disk refused.
        """
        with store_failures(self.path):
            head = min(-offset % DIRECT_ALIGNMENT, len(view))
            middle = (len(view) - head) // DIRECT_ALIGNMENT * DIRECT_ALIGNMENT
            if not direct or not middle or not self._written(view[head:][:middle], offset + head):
                _write(self._handle, view, offset, WRITE_BYTES)
                return
            _write(self._handle, view[:head], offset, WRITE_BYTES)
            _write(self._handle, view[head + middle :], offset + head + middle, WRITE_BYTES)

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset` on.

        Raises:
            StoreError: the disk refused.
            CorruptShardError: the file is shorter than it was.
        """
        filled = 0
        with store_failures(self.path):
            while filled < len(view):
                count = os.preadv(self._handle, [view[filled:]], offset + filled)
                if count == 0:
                    raise CorruptShardError("The staging file became shorter while it was read.")
                filled += count

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            StoreError: the disk refused.
        """
        with store_failures(self.path):
            os.fdatasync(self._handle)

    def _written(self, view: memoryview, offset: int) -> bool:
        """Try a direct write; False where the filesystem has none (then never again)."""
        if self._direct_handle is None or not self._direct:
            return False
        try:
            _write(self._direct_handle, view, offset, len(view))
        except OSError as error:
            if error.errno not in _NOT_DIRECT:
                raise
            self._direct = False
        return self._direct


def _open_direct(path: Path) -> int | None:
    if not _O_DIRECT:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | _O_DIRECT)
    except OSError:
        return None


def _reserve(handle: int, size: int) -> None:
    """Linux's fallocate(2): os.posix_fallocate would write to every block where there is none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if function is None:
        return
    failed = function(handle, 0, ctypes.c_longlong(0), ctypes.c_longlong(size))
    number = ctypes.get_errno()
    if failed and number not in _NOT_RESERVED:
        raise OSError(number, os.strerror(number))


def _write(handle: int, view: memoryview, offset: int, step: int) -> None:
    while view:
        count = os.pwrite(handle, view[:step], offset)
        view, offset = view[count:], offset + count
