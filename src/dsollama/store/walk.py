"""Looking at folders that others write too: no link is followed, and everything has a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

MAX_SEEN = 200_000
"""Files and folders of one walk. A store of 20,000 models has 40,000 below `manifests` and 100,000
in `blobs`; names of 255 letters then take 60 MB."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry of a walked folder: anything but a folder that could be entered.

    Attributes:
        path: where it is.
        parts: the same, below the walked folder; empty for that folder itself.
        status: of the entry itself, never of what a link leads to; None where it cannot be had.
        problem: why it is not a regular file; empty where it is one.
    """

    path: Path
    parts: tuple[str, ...]
    status: os.stat_result | None
    problem: str

    @property
    def there(self) -> bool:
        """Whether something is there, or may be."""
        return self.status is not None or self.problem != ""


def walk(folder: Path, limit: int = MAX_SEEN) -> Iterator[Seen]:
    """Yield everything below `folder` that is not a folder, and each folder that cannot be listed.

    A folder that does not exist is empty. A symbolic link is yielded, with its problem, and not
    followed, not even where it is `folder` itself. Of more than `limit` files and folders the rest
    is left out, and `folder` itself is yielded in the end, with that problem.
    """
    waiting: list[tuple[Path, tuple[str, ...], str]] = [(folder, (), "")]
    left = limit
    while waiting:  # a stack of our own: hostile folders may be nested deeper than Python calls
        above, parts, name = waiting.pop()
        path, parts = (above / name, (*parts, name)) if name else (above, parts)
        seen = look(path, parts)
        if seen.status is None or not stat.S_ISDIR(seen.status.st_mode):
            if seen.there:
                yield seen
            continue
        try:
            names = list_names(path, left + 1)
        except OSError as error:
            yield Seen(path, parts, seen.status, f"cannot be listed ({error.strerror})")
            continue
        waiting += ((path, parts, each) for each in reversed(names[:left]))
        left -= len(names)
        if left < 0:
            break
    else:
        return
    yield from _rest(waiting)
    problem = f"holds more than {limit} files and folders, and not all were looked at"
    yield Seen(folder, (), look(folder).status, problem)


def _rest(waiting: list[tuple[Path, tuple[str, ...], str]]) -> Iterator[Seen]:
    """Yield the files among what was listed already; no folder is entered any more."""
    for above, parts, name in reversed(waiting):
        seen = look(above / name, (*parts, name))
        if seen.status is None or not stat.S_ISDIR(seen.status.st_mode):
            yield seen


def list_names(folder: Path, limit: int) -> list[str]:
    """Return the names in a folder in order, or `limit` of them where there are more.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as found:
        return sorted(each.name for each in islice(found, limit))


def look(path: Path, parts: tuple[str, ...] = ()) -> Seen:
    """Look at one entry; what does not exist has neither status nor problem."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Seen(path, parts, None, "")
    except OSError as error:
        return Seen(path, parts, None, f"cannot be looked at ({error.strerror})")
    return Seen(path, parts, status, _problem(status.st_mode))


def is_own_folder(root: Path, *parts: str) -> bool:
    """Whether `root/part/part...` is a folder that is reached through folders alone, not links.

    `root` itself may be a link: the user named it.
    """
    path = root
    for part in parts:
        path /= part
        seen = look(path)
        if seen.status is None or not stat.S_ISDIR(seen.status.st_mode):
            return False
    return path.is_dir()


def disk_bytes(status: os.stat_result) -> int:
    """Return the bytes that removing the file frees: its blocks, or 0 where it has other names."""
    return status.st_blocks * 512 if status.st_nlink == 1 else 0


def last_touched(status: os.stat_result) -> float:
    """Return when the file was last written, renamed or otherwise changed, seconds since 1970.

    The time of change counts too, for a copy or a restored backup keeps old times of writing.
    """
    return max(status.st_mtime, status.st_ctime)


def printable(path: Path) -> str:
    """Return a path as text that any terminal and JSON take, whatever a file was named."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def _problem(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    return "is not a regular file"
