"""Whose the store is: what we make there is its owner's, and why it cannot be written.

Ollama's service runs as a user of its own. What `sudo dsollama` makes must belong to that user, or
Ollama can neither change nor remove it. So root makes it as the owner (`dsollama.privileges`). What
a store of root's gets has the folder's owner and group and the modes that Ollama gives, whatever
the umask.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsollama.privileges import acting
from dsollama.programs import ourselves

FOLDER_MODE = 0o755
FILE_MODE = 0o644
"""Modes of what Ollama itself puts into a store."""

LOCK_MODE = 0o600
"""Mode of a lock: whoever may open one, for reading too, can hold it for as long as he likes."""

SERVICE_USER = "ollama"
"""As whom Ollama's own installer runs the service."""

_FIRST_PERSON = 1000
"""User ids below it are services' on Linux."""

_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What systemd's ProtectHome= hides from a service."""

_KEEP = "--preserve-env=HF_TOKEN,HF_ENDPOINT,HF_HUB_DISABLE_IMPLICIT_TOKEN"
"""Of the variables that an install heeds, those that sudo would drop and that cannot be guessed."""

_ENTER = 0o1
_WRITE = 0o2


@dataclass(frozen=True)
class Folder:
    """A folder, or what is in its place: owner, group, and permission bits."""

    path: Path
    uid: int
    gid: int
    mode: int
    is_folder: bool = True


@dataclass(frozen=True)
class User:
    """A user: name, id, and the ids of all groups."""

    name: str
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True)
class Facts:
    """What decides whether a store can be written and read.

    Attributes:
        store: its root, existing or not.
        chain: the folders that exist, from / down to the store or its nearest parent.
        refused: the first thing that this process cannot write or enter; None if there is none.
        read_only: whether the filesystem is mounted so.
        me: who we are.
        service: the user that Ollama's service runs as, where there is one.
        names: (users, groups) by id, as far as the system knows them.
        owner: `USER:GROUP` as whom root acts here; empty where the caller is not root, or acts as
            root.
    """

    store: Path
    chain: tuple[Folder, ...]
    refused: Folder | None
    read_only: bool
    me: User
    service: User | None
    names: tuple[Mapping[int, str], Mapping[int, str]]
    owner: str = ""


def hand_over(handle: int, folder: Path, mode: int | None = None) -> None:
    """Let an open file or folder belong to whom the `folder` belongs that it lies in.

    As root: to its owner. In a folder that a group may write (`is_shared`): to that group, which
    may write it, too. So Ollama's service can change what a user of its group has installed, and
    he what root has. Elsewhere nothing is changed but for `mode`.

    Whoever owns the folder could put a link to a file of root's at any name in it. So this takes
    an open handle, never a path, and leaves alone what has a second name.

    Args:
        handle: of the file or folder; in a shared folder it may be another user's, and then has
            his modes already.
        folder: where it lies.
        mode: its permissions before a group gets any. None: those that Ollama gives, whatever the
            umask, where root or a group is concerned.

    Raises:
        OSError: the system refuses.
    """
    found, wanted, me = os.fstat(handle), folder.stat(), acting().uid
    root, shared = os.geteuid() == 0, is_shared(wanted)
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not (stat.S_ISREG(found.st_mode) and found.st_nlink == 1):
        return
    if me == 0 and found.st_uid != wanted.st_uid:
        os.fchown(handle, wanted.st_uid, -1)
    elif me not in {0, found.st_uid}:
        return
    if (root or shared) and found.st_gid != wanted.st_gid:
        with suppress(PermissionError):  # the owner of a folder need not be in its group
            os.fchown(handle, -1, wanted.st_gid)
    if root or shared or mode is not None:
        _set_mode(handle, made_mode(wanted, _usual(mode, is_folder=is_folder)))


def is_shared(folder: os.stat_result) -> bool:
    """Whether a group uses a folder together: it may write there, and take away each other's."""
    return folder.st_mode & (stat.S_IWGRP | stat.S_ISVTX) == stat.S_IWGRP


def made_mode(folder: os.stat_result, mode: int) -> int:
    """Return the permissions of what is made in `folder`: a group that shares it gets all."""
    return mode | (mode & 0o700) >> 3 if is_shared(folder) else mode


def _usual(mode: int | None, *, is_folder: bool) -> int:
    if mode is not None:
        return mode
    return FOLDER_MODE if is_folder else FILE_MODE


def _set_mode(handle: int, mode: int) -> None:
    """Change the permissions if they differ; chmod(2) may take away a folder's set-group-id bit."""
    before = stat.S_IMODE(os.fstat(handle).st_mode)
    if before & 0o777 != mode:
        os.fchmod(handle, before & stat.S_ISGID | mode)


def look(store: Path, writable: Sequence[Path]) -> Facts:
    """Find out about a store.

    Args:
        store: its root.
        writable: folders that must be writable where they exist.
    """
    chain = tuple(_chain(store))
    refused = chain[-1] if not chain[-1].is_folder or not _may_write(chain[-1].path) else None
    if refused is None:
        found = (_folder(path) for path in writable)
        refused = next(
            (each for each in found if each and not (each.is_folder and _may_write(each.path))),
            None,
        )
    me = acting()
    place = refused.path if refused else chain[-1].path
    owner = chain[-1].uid
    return Facts(
        store=store,
        chain=chain,
        refused=refused,
        read_only=_is_read_only(place),
        me=User(_user_name(me.uid), me.uid, frozenset({me.gid, *me.groups})),
        service=_service_user(owner),
        names=_names((*chain, *([refused] if refused else []))),
        owner=f"{me.name}:{_group_name(me.gid)}" if os.geteuid() == 0 != me.uid else "",
    )


def diagnose(facts: Facts, command: str) -> tuple[str, str] | None:
    """Return why the store cannot be written and the ways out; None where it can.

    Args:
        facts: from `look`.
        command: the command line that would do it as root.
    """
    at = facts.refused
    if at is None:
        return None
    why = f"The store {facts.store} cannot be written: {at.path}"
    start = f"{why} is not writable"
    if not at.is_folder:
        return f"{start}, because it is no folder.", "Move it away, or give --store another folder."
    if facts.read_only:
        return (
            f"{start}, because its filesystem is mounted read-only.",
            "Mount it writable, or give --store / OLLAMA_MODELS a folder elsewhere.",
        )
    owner, group = _owner(facts, at)
    if facts.me.uid == 0:
        return (
            f"{start} even by root: it belongs to {owner}:{group}, mode {at.mode:04o}.",
            f"It may be another machine's disk, or locked. Try as {owner}, or another --store.",
        )
    if not permits(at, facts.me, _ENTER):
        start = f"{why} cannot be entered"
    who = "as whom root works there" if facts.owner else f"uid {facts.me.uid}"
    sentence = (
        f"{start} by {facts.me.name} ({who}): it belongs to {owner}:{group}, mode {at.mode:04o}."
    )
    if facts.owner:
        return sentence, _way_of_root(facts, at)
    return sentence, "\n".join(_ways_out(facts, at, command))


def service_notes(facts: Facts) -> tuple[str, ...]:
    """Return, a sentence each, why Ollama's service could not use this store."""
    service = facts.service
    if service is None:
        return ()
    notes = []
    closed = next((each for each in facts.chain if not permits(each, service, _ENTER)), None)
    if closed is not None:
        notes.append(
            f"The user {service.name}, as whom Ollama's service runs, cannot enter {closed.path} "
            f"(mode {closed.mode:04o}) and so not read this store: `sudo chmod o+x {closed.path}`, "
            "or take a store elsewhere."
        )
    if any(facts.store.is_relative_to(each) for each in _HIDDEN):
        notes.append(
            f"A service with systemd's ProtectHome= cannot see {facts.store}: take a store outside "
            "of it, or set ProtectHome=no with `sudo systemctl edit ollama`."
        )
    at = facts.chain[-1]
    if closed is None and facts.me.uid == 0 and not permits(at, service, _WRITE):
        notes.append(
            f"{at.path} belongs to {_owner(facts, at)[0]}: the user {service.name} can read the "
            f"model but not remove it. `sudo chown {service.name}: {at.path}` before the install "
            "changes that."
        )
    return tuple(notes)


def permits(folder: Folder, user: User, bit: int) -> bool:
    """Whether the mode bits let a user do it: 1 enters, 2 writes; ACLs are not looked at."""
    if user.uid == 0:
        return True
    if user.uid == folder.uid:
        return bool(folder.mode >> 6 & bit)
    if folder.gid in user.gids:
        return bool(folder.mode >> 3 & bit)
    return bool(folder.mode & bit)


def sudo_command(argv: Sequence[str], store: Path) -> str:
    """Return this very command line for sudo.

    sudo looks for programs elsewhere, has another home and so another store, and drops variables.

    Args:
        argv: ours, the program first.
        store: what it must name.
    """
    program, *arguments = argv or ["dsollama"]
    words = [program]
    if program.endswith("__main__.py"):
        words = ourselves()
    elif Path(program).name != "dsollama":  # another program that uses us
        words, arguments = ["dsollama"], ["install", "..."]
    if not any(each == "--store" or each.startswith("--store=") for each in arguments):
        arguments = [*arguments, "--store", str(store)]
    keep = [_KEEP] if arguments[0] == "install" else []
    return shlex.join(["sudo", *keep, *words, *arguments])


def _way_of_root(facts: Facts, at: Folder) -> str:
    """What root does where the store's owner, as whom it acts, may not write."""
    if at.uid == facts.me.uid:
        return f"Let its owner write there: `sudo chmod u+rwx {_quoted(at.path)}`, then the same."
    if facts.store in at.path.parents:
        return (
            "What an earlier run as root has made there must be the owner's: "
            f"`sudo chown -R {facts.owner} {_quoted(at.path)}`, then the same command."
        )
    if at.path == facts.store:
        return (
            f"{facts.me.name} owns a link or a folder on the way to it, and so decides where it "
            f"leads. Name it by a way of root's: `--store {_quoted(at.path.resolve())}`."
        )
    return (
        f"Let him enter: `sudo chmod o+x {_quoted(at.path)}`, or take a store elsewhere with "
        "--store / OLLAMA_MODELS."
    )


def _way_of_group(facts: Facts, top: Folder) -> Iterator[str]:
    """How a group shares a store that it may write: all of its folders, or it is of no use."""
    group = _owner(facts, top)[1]
    join = f"sudo usermod -aG {group} {facts.me.name}"
    folders = f"sudo find {_quoted(top.path)} -type d"  # files may be other users' second names
    open_all = f"{folders} -exec chgrp {group} {{}} + -exec chmod g+rwxs {{}} +"
    if top.gid in facts.me.gids:
        yield f"Open all of its folders to the group {group}: `{open_all}`, then the same command."
    else:
        yield (
            f"Its group may write: `{join}`, and for its folders `{open_all}`; log in again, then "
            "the same command."
        )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _ways_out(facts: Facts, at: Folder, command: str) -> Iterator[str]:
    # Whose the store behind a closed folder is cannot be seen.
    whose = f"{_owner(facts, at)[0]}'s" if permits(at, facts.me, _ENTER) else "its owner's"
    yield f"As root it goes, and what is made there will be {whose}: {command}"
    top = facts.chain[-1]
    if top.path == facts.store and top.mode >> 3 & (_WRITE | _ENTER) == _WRITE | _ENTER:
        yield from _way_of_group(facts, top)
    yield "Or give --store / OLLAMA_MODELS a folder of your own, and run `ollama serve` on it."


def _owner(facts: Facts, folder: Folder) -> tuple[str, str]:
    users, groups = facts.names
    return users.get(folder.uid, str(folder.uid)), groups.get(folder.gid, str(folder.gid))


def _chain(store: Path) -> Iterator[Folder]:
    for path in (*reversed(store.parents), store):
        found = _folder(path)
        if found is None:
            return
        yield found
        if not found.is_folder or not os.access(path, os.X_OK, effective_ids=_EFFECTIVE):
            return  # what is below cannot be looked at


_EFFECTIVE = os.access in os.supports_effective_ids


def _folder(path: Path) -> Folder | None:
    try:
        found = path.stat()
    except (FileNotFoundError, PermissionError):
        return None
    except OSError:  # a loop of links, a name too long: no folder that could be used
        return Folder(path, 0, 0, 0, is_folder=False)
    mode = stat.S_IMODE(found.st_mode)
    return Folder(path, found.st_uid, found.st_gid, mode, stat.S_ISDIR(found.st_mode))


def _may_write(folder: Path) -> bool:
    may = os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE)
    return may and not _is_read_only(folder)


def _is_read_only(place: Path) -> bool:
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _service_user(owner: int) -> User | None:
    """The store's owner if that is a service; for root also Ollama's own user, if there is one."""
    me = os.geteuid()
    with suppress(KeyError):
        if owner not in {0, me} and owner < _FIRST_PERSON:
            return _user(pwd.getpwuid(owner))
        if me == 0 and owner == 0:
            return _user(pwd.getpwnam(SERVICE_USER))
    return None


def _user(entry: pwd.struct_passwd) -> User:
    return User(
        entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _names(folders: Sequence[Folder]) -> tuple[dict[int, str], dict[int, str]]:
    users = {each.uid: _user_name(each.uid) for each in folders}
    return users, {each.gid: _group_name(each.gid) for each in folders}
