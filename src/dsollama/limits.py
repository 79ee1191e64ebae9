"""Limits of this process: memory, threads and open files (`ulimit`), and how to live with few.

Who meets one is told which, once, by LimitError; nothing else is guessed from it. So a store that
cannot be read for lack of a handle is not taken for a damaged one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsollama.errors import LimitError, causes

FEWEST_FILES = 24
"""That must be free to be opened: an install has up to 20 open besides its connections."""

FEWEST_ADDRESSES = 128 * 2**20
"""Bytes that must be free to be addressed. With 30 MiB CPython 3.11 was seen to spin for ever."""

WANTED_FILES = 1024
_ARENA_MAX = -8
"""mallopt(3): M_ARENA_MAX."""

_THREAD = "can't start new thread"
_ALLOCATE = "allocate memory"
_UNLIMITED = resource.RLIM_INFINITY
_OWN_FILES = Path("/proc/self/fd")
_OWN_SIZES = Path("/proc/self/statm")


def prepare() -> None:
    """Make the most of the limits of this process; called once, at its start.

    Raises:
        LimitError: it may open too few files, or address too little memory.
    """
    _raise_files()
    if _addresses() != _UNLIMITED:
        if _addresses() - _used_addresses() < FEWEST_ADDRESSES:
            raise _memory()
        _share_arenas()
    if _free_files() < FEWEST_FILES:
        raise _files()


def most_connections(wanted: int) -> int:
    """Return how many of `wanted` connections there are files for, at least one."""
    return max(min(wanted, _free_files() - FEWEST_FILES), 1)


def start_thread(work: Callable[..., object], *arguments: Any) -> threading.Thread:
    """Start a thread that ends with the process.

    Raises:
        LimitError: the system starts no more.
    """
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise limit_error(error) or error from error
    return thread


def limit_error(error: BaseException) -> LimitError | None:
    """Return which limit an error comes from; None for an error of another kind."""
    for each in causes(error):
        found = _limit(each)
        if found is not None:
            found.__cause__ = error
            return found
    return None


def _limit(error: BaseException) -> LimitError | None:
    number = error.errno if isinstance(error, OSError) else None
    said = str(error) if isinstance(error, RuntimeError | ImportError) else ""
    # A SystemError comes from C code of CPython that forgot to say MemoryError.
    forgot = isinstance(error, SystemError) and _addresses() != _UNLIMITED
    if isinstance(error, LimitError):
        return error
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _ALLOCATE in said or forgot:
        return _memory()
    if number == errno.EMFILE:
        return _files()
    if number == errno.ENFILE:
        return LimitError(
            "No more files can be opened on this machine.",
            "Other programs have very many open; the system's limit is fs.file-max.",
        )
    if number == errno.EAGAIN or _THREAD in said:
        return _threads()
    return None


def _addresses() -> int:
    """Return how many bytes of addresses this process may have."""
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def _used_addresses() -> int:
    """Return how many bytes of addresses this process has; 0 where the system does not say."""
    try:
        return int(_OWN_SIZES.read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _memory() -> LimitError:
    size = _addresses()
    if size == _UNLIMITED:
        return LimitError(
            "There is not enough memory.",
            "End other programs, or give the container more: dsollama needs some 200 MB.",
        )
    return LimitError(
        f"The memory that this process may have is not enough: {size // 2**20} MiB (`ulimit -v`).",
        "Run it in a shell with `ulimit -v 1048576` (KiB) or more, or with `ulimit -v unlimited`.",
    )


def _threads() -> LimitError:
    count, size = (
        resource.getrlimit(each)[0] for each in (resource.RLIMIT_NPROC, resource.RLIMIT_AS)
    )
    known = [f"`ulimit -u` is {count}"] if count != _UNLIMITED else []
    known += [f"`ulimit -v` is {size // 1024}"] if size != _UNLIMITED else []
    return LimitError(
        "The system starts no more threads or programs for this user"
        + (f" ({', '.join(known)})." if known else "."),
        "Raise that limit (`ulimit -u 4096`, `ulimit -v unlimited`; TasksMax= of a service, "
        "--pids-limit of a container), or end other programs.",
    )


def _files() -> LimitError:
    count = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return LimitError(
        f"This process may have {count} files open at once (`ulimit -n`), which are too few.",
        "More than its hard limit no program gets by itself: an administrator sets it "
        "(/etc/security/limits.conf; LimitNOFILE= of a service, --ulimit nofile= of a container).",
    )


def _raise_files() -> None:
    """Take what the hard limit gives; everybody may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED_FILES if hard == _UNLIMITED else min(hard, WANTED_FILES)
    if soft != _UNLIMITED and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _free_files() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = len(os.listdir(_OWN_FILES))  # noqa: PTH208 - with a list there is no handle left
    except OSError as error:
        used = limit if error.errno == errno.EMFILE else 0
    return (2**31 if limit == _UNLIMITED else limit) - used


def _share_arenas() -> None:
    """Keep glibc from taking 64 MiB of addresses for every thread: a gigabyte for 16."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
