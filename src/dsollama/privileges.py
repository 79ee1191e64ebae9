"""As whom dsollama touches files: the one place of the rule for root.

The rule: as root, everything in a store happens as the store's owner. So the kernel refuses what
the owner may not do, whatever links, second names or exchanged folders he has prepared, and new
files are his from the start. What belongs to the caller is read as the caller (`as_caller`):
Python's modules, files of this package, the token, certificates. Other folders of files
(`--from-dir`, `--from-store`, huggingface_hub's cache) are read as their own owner, by this rule.

Linux only, by setfsuid(2), setfsgid(2) and setgroups(2) as system calls: they change one thread,
new threads inherit them, and with a user id that is not 0 the kernel takes away the capabilities
that go past file permissions.
Process ids are not touched, so the owner can neither signal nor trace us. Elsewhere root must run
dsollama as the owner (`sudo -u`).
"""

from __future__ import annotations

import ctypes
import errno
import importlib.abc
import importlib.machinery
import os
import pwd
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dsollama.errors import StoreNotWritableError

_LIBC = ctypes.CDLL(None)
_SETFSUID = getattr(_LIBC, "setfsuid", None)
_SETFSGID = getattr(_LIBC, "setfsgid", None)
_ASK = 0xFFFF_FFFF
"""No user has this id: setfsuid(2) then changes nothing and returns the id of now."""

_SYS_SETGROUPS = {
    "x86_64": 116,
    "ppc64le": 81,
    "s390x": 206,
    **dict.fromkeys(("aarch64", "riscv64", "loongarch64"), 159),
}.get(os.uname().machine if sys.maxsize > _ASK else "")
"""Number of setgroups(2) by itself (Linux's unistd.h): the C library's changes every thread."""

_CAN_SWITCH = None not in (_SETFSUID, _SETFSGID, _SYS_SETGROUPS)

_MAX_LINKS = 40
"""Symbolic links in one path, as for the kernel."""

_MAX_FOLDERS = 20_000
_WRITE_GROUP, _WRITE_OTHERS = 0o020, 0o002


@dataclass(frozen=True)
class Identity:
    """A user as the file system sees him: user id, group id, ids of all groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def name(self) -> str:
        """The user's name, or his id where the system knows none."""
        return _user_name(self.uid)


CALLER = Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
"""Who started dsollama; under sudo this is root."""


def acting() -> Identity:
    """Return as whom this thread touches files."""
    if os.geteuid() != 0 or _SETFSUID is None or _SETFSGID is None:
        return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    uid = _SETFSUID(_ASK) & _ASK
    return Identity(uid, _SETFSGID(_ASK) & _ASK, tuple(os.getgroups()))


@contextmanager
def acting_as(wanted: Identity | None) -> Iterator[None]:
    """Let this thread touch files as `wanted` inside the block; None changes nothing.

    Raises:
        StoreNotWritableError: the system does not let us.
    """
    if wanted is None or os.geteuid() != 0:
        yield
        return
    before = acting()
    _switch(wanted)
    try:
        yield
    finally:
        _switch(before)


def as_caller() -> Any:
    """Return a context in which this thread touches files as who started dsollama."""
    return acting_as(CALLER if acting().uid != CALLER.uid else None)


def act_as_owner(store: Path) -> None:
    """From now on, and for the rest of the process, touch files as the owner of `store`.

    Raises:
        StoreNotWritableError: as `owner_of`.
    """
    owner = owner_of(store)
    if owner is not None:
        _prepare()
        _switch(owner)


@contextmanager
def acting_as_owner(store: Path) -> Iterator[None]:
    """Touch files as the owner of `store` inside the block.

    Raises:
        StoreNotWritableError: as `owner_of`.
    """
    owner = owner_of(store)
    if owner is None:
        yield
        return
    _prepare()
    with acting_as(owner):
        yield


def owner_of(store: Path) -> Identity | None:
    """Return as whom root acts in `store`; None where we are not root, or the store is root's.

    A store of root's counts as his only if nobody else can change it, or a folder or link on the
    way to it. Whoever owns such a link decides where the path leads, so root acts as him.

    Raises:
        StoreNotWritableError: others can change a store of root's, or this system cannot act as
            another user.
    """
    if os.geteuid() != 0:
        return None
    steps = list(_steps(store))
    uids = [found.st_uid for _, found in steps if found.st_uid != 0]
    last = next((found for _, found in reversed(steps) if not stat.S_ISLNK(found.st_mode)), None)
    if last is None or (last.st_uid == 0 and not uids):
        _refuse_shared(store, steps)
        return None
    if not _CAN_SWITCH:
        name = _user_name(last.st_uid or uids[0])
        raise StoreNotWritableError(
            f"The store {store} belongs to {name}, and on this system root cannot act as him.",
            f"Run dsollama as its owner: `sudo -u {name} dsollama ...`.",
        )
    return _identity(last if last.st_uid != 0 else None, last.st_uid or uids[0])


def child_identity() -> dict[str, Any]:
    """Return the options of subprocess that start a program as whom this thread acts."""
    now = acting()
    if now.uid == os.geteuid():
        return {}
    return {"user": now.uid, "group": now.gid, "extra_groups": list(now.groups)}


def _identity(folder: os.stat_result | None, uid: int) -> Identity:
    """Take the folder's group if its owner is in it: the store's files have it, too."""
    wanted = folder.st_gid if folder else 0
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        gid = wanted or uid  # nobody knows his groups; root's is surely none of them
        return Identity(uid, gid, (gid,))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Identity(uid, wanted if wanted in groups else entry.pw_gid, groups)


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and link that the kernel passes on the way to `path`, as far as it is."""
    at, links = Path("/"), 0
    waiting = list(reversed(path.absolute().parts[1:]))
    yield at, at.lstat()
    while waiting:
        part = waiting.pop()
        if part == "..":
            at = at.parent
            continue
        try:
            found = (at / part).lstat()
        except OSError:  # it does not exist, or cannot be looked at: nothing leads further
            return
        yield at / part, found
        if not stat.S_ISLNK(found.st_mode):
            at /= part
            continue
        links += 1
        if links > _MAX_LINKS:
            return
        target = (at / part).readlink()
        if target.is_absolute():
            at = Path("/")
        waiting += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _refuse_shared(store: Path, steps: Sequence[tuple[Path, os.stat_result]]) -> None:
    """Refuse a store of root's in which somebody else can lay links."""
    for path, found in steps[:-1]:
        # In a sticky folder nobody takes away what is root's, but all can make what is not there.
        if not found.st_mode & stat.S_ISVTX:
            _require_private(store, path, found)
    for path, found in (*steps[-1:], *_folders(store)):
        _require_private(store, path, found)


def _require_private(store: Path, path: Path, found: os.stat_result) -> None:
    shared = _sharers(found)
    if not shared:
        return
    hint = (
        f"Give the store to the user who runs Ollama (`chown -R USER: {store}`), or let "
        f"nobody but root write to {path} (`chmod go-w {path}`)."
    )
    if found.st_mode & stat.S_ISVTX and not store.exists():
        hint = f"Make the folder first: `mkdir {store}`."
    raise StoreNotWritableError(
        f"As root, dsollama does not work in {store}: {shared} can change {path}.", hint
    )


def _sharers(found: os.stat_result) -> str:
    if found.st_uid != 0:
        return f"the user {_user_name(found.st_uid)}"
    if not stat.S_ISDIR(found.st_mode):
        return ""
    if found.st_mode & _WRITE_OTHERS:
        return "every user"
    return f"the group {found.st_gid}" if found.st_mode & _WRITE_GROUP and found.st_gid else ""


def _folders(store: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for count, (folder, _, _) in enumerate(os.walk(store)):
        if count > _MAX_FOLDERS:
            raise StoreNotWritableError(
                f"The store {store} holds more than {_MAX_FOLDERS} folders.",
                "Give --store / OLLAMA_MODELS the folder that holds `blobs` and `manifests`.",
            )
        yield Path(folder), Path(folder).lstat()


def _prepare() -> None:
    """Let imports stay possible."""
    if not any(isinstance(each, _CallersFinder) for each in sys.meta_path):
        sys.meta_path.insert(0, _CallersFinder())


def _switch(wanted: Identity) -> None:
    assert _SETFSUID is not None  # noqa: S101 - owner_of has looked
    assert _SETFSGID is not None  # noqa: S101
    if sorted(os.getgroups()) != sorted(wanted.groups):
        _set_groups(wanted)
    _SETFSGID(wanted.gid)
    _SETFSUID(wanted.uid)
    now = acting()
    if (now.uid, now.gid) != (wanted.uid, wanted.gid):
        raise _cannot(wanted)


def _set_groups(wanted: Identity) -> None:
    """Let this thread alone have the groups of `wanted`."""
    numbers = (ctypes.c_uint32 * len(wanted.groups))(*wanted.groups)
    count = ctypes.c_size_t(len(wanted.groups))
    if _LIBC.syscall(ctypes.c_long(_SYS_SETGROUPS or -1), count, numbers):
        raise _cannot(wanted)


def _cannot(wanted: Identity) -> StoreNotWritableError:
    return StoreNotWritableError(
        f"This process is not allowed to act as {wanted.name}, who owns the store "
        f"({os.strerror(errno.EPERM)}).",
        f"Run dsollama as that user, or allow the container CAP_SETUID and CAP_SETGID: "
        f"`sudo -u {wanted.name} dsollama ...`.",
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class _CallersFinder(importlib.abc.MetaPathFinder):
    """Imports modules as the caller: they may lie in a home that the store's owner cannot enter."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Ask the other finders, as the caller."""
        if acting().uid == CALLER.uid:
            return None
        with as_caller():
            for finder in sys.meta_path:
                spec = None if finder is self else finder.find_spec(name, path, target)
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _CallersLoader(spec.loader)
                    return spec
        return None


class _CallersLoader(importlib.abc.Loader):
    """Runs a module as the caller; is else the loader that was found."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        with as_caller():
            found: ModuleType | None = self._loader.create_module(spec)
            return found

    def exec_module(self, module: ModuleType) -> None:
        with as_caller():
            self._loader.exec_module(module)
