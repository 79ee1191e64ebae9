"""The traps: what an owner of a store can lay at each place that dsollama or Ollama uses."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

OWNER = (4321, 4322)
ZERO = os.makedev(1, 5)


@dataclass(frozen=True)
class Trap:
    """Something at a place of the store that is not what dsollama expects there.

    Attributes:
        kind: one of `KINDS`.
        place: below the store.
    """

    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.place}"


LINKS = {
    "secret": "a link to a file or folder that only root may read",
    "open": "a link to one of root's that everybody may read",
    "relative": "the same by a relative path",
    "proc": "a link to a secret by way of /proc/self/root",
    "fd": "a link to a secret that dsollama has open",
    "dangling": "a link to a name that is free in a folder of root's",
    "loop": "a link to itself",
}
FILES = {
    "hard": "a second name of a file that only root may read",
    "hard open": "a second name of one that everybody may read",
    "fifo": "a pipe that nobody reads or writes",
    "device": "a device that never ends",
    "socket": "a socket",
    "folder": "a folder where a file belongs",
    "file": "a file where a folder belongs",
}
KINDS = LINKS | FILES


@dataclass(frozen=True)
class Roots:
    """What is root's beside the store: the same files as in it, once secret and once open."""

    folder: Path

    @property
    def secret(self) -> Path:
        return self.folder / "secret"

    @property
    def open(self) -> Path:
        return self.folder / "open"

    @property
    def new(self) -> Path:
        """A folder of root's in which nothing is."""
        return self.folder / "new"


def lay(trap: Trap, store: Path, roots: Roots) -> None:
    """Lay a trap, as the owner of the store would; hard links as root, whatever the sysctl."""
    path = store / trap.place
    _make_way(path, store)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if trap.kind in LINKS:
        path.symlink_to(_target(trap, path, roots))
    elif trap.kind.startswith("hard"):
        os.link(_mirrored(roots.open if trap.kind == "hard open" else roots.secret, trap), path)
        return  # the file stays root's
    elif trap.kind == "folder":
        path.mkdir()
    elif trap.kind == "file":
        path.touch()
    elif trap.kind == "socket":
        _bind(path)
    else:
        kind = stat.S_IFIFO if trap.kind == "fifo" else stat.S_IFCHR
        os.mknod(path, kind | 0o666, 0 if trap.kind == "fifo" else ZERO)
    os.lchown(path, *OWNER)


def _target(trap: Trap, path: Path, roots: Roots) -> str:
    secret, open_ = _mirrored(roots.secret, trap), _mirrored(roots.open, trap)
    return {
        "secret": str(secret),
        "open": str(open_),
        "relative": os.path.relpath(open_, path.parent),
        "proc": f"/proc/self/root{secret}",
        "fd": "/proc/self/fd/9",
        "dangling": str(roots.new / trap.place.replace("/", "_")),
        "loop": path.name,
    }[trap.kind]


def _mirrored(mirror: Path, trap: Trap) -> Path:
    """Return root's file or folder that a trap leads to; where the store has none, it is made."""
    path = mirror / trap.place
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"root's alone {MARK}" if mirror.name == "secret" else "root's")
        path.chmod(0o600 if mirror.name == "secret" else 0o644)
    return path


def _make_way(path: Path, store: Path) -> None:
    missing = [each for each in path.parents if store in each.parents and not each.exists()]
    for folder in reversed(missing):
        folder.mkdir()
        os.chown(folder, *OWNER)


def _bind(path: Path) -> None:
    """Make a socket; its address has room for 107 characters only."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name[:100])
        if path.name[:100] != path.name:
            Path(path.name[:100]).rename(path)
    finally:
        os.fchdir(before)
        os.close(before)


MARK = "SECRET-OF-ROOT-7d1f"
"""Stands in every secret; it may turn up nowhere else."""


def groups(places: dict[str, str]) -> dict[str, tuple[Trap, ...]]:
    """Return traps by the name of their group; those of a group do not hide each other.

    Args:
        places: the places of the store by a short name.
    """
    found = [(kind, name, SETS[name]) for kind in OF_ALL_FILES for name in SETS]
    found += [
        (kind, name, ROTATED[name]) for name, kinds in OF_SOME_FILES.items() for kind in kinds
    ]
    found += [(kind, inside[0], inside) for kind in OF_FOLDERS for inside in FOLDERS]
    for number, inside in enumerate(FOLDERS):
        found.append((OF_SOME_FOLDERS[number % len(OF_SOME_FOLDERS)], inside[0], inside))
    return {
        f"{kind}-{name}": tuple(Trap(kind, places[each]) for each in inside)
        for kind, name, inside in found
    }


OF_ALL_FILES = ("secret", "open", "hard", "dangling")
OF_SOME_FILES = {
    "files": ("hard open", "fifo", "fd", "socket", "folder"),
    "others": ("relative", "fifo", "proc", "device", "loop"),
}
OF_FOLDERS = ("secret", "open")
OF_SOME_FOLDERS = ("dangling", "file", "fifo")
SETS: dict[str, tuple[str, ...]] = {
    "weights": ("weights", "modelfile", "merged", "removal", "ledger.tmp", "shard"),
    "config": ("config", "ledger", "journal", "journal.new", "modelfile of the new name"),
    "template": ("template", "record.new", "progress", "progress.new", "ledger of the new blob"),
    "manifest": ("manifest", "record", "consumed.new", "repair lock", "new blob"),
    "locks": ("new manifest", "staging lock", "other merged", "other lock"),
    "lock": ("lock",),
}
ROTATED: dict[str, tuple[str, ...]] = {
    "files": ("weights", "ledger", "journal.new", "merged", "removal", "shard", "modelfile"),
    "others": ("template", "manifest", "record", "progress.new", "ledger.tmp", "other merged"),
}
FOLDERS: tuple[tuple[str, ...], ...] = (
    ("blobs",),
    ("manifests",),
    ("host",),
    ("library",),
    ("model",),
    (".dsollama",),
    ("tmp",),
    ("modelfiles",),
    ("staging",),
    ("key",),
    ("other key", "repair", "removing", "modelfiles of the host"),
    ("ledger folder",),
)
