"""Looking at folders that others write too: no link is followed, no file read without a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
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


def walk(folder: Path) -> Iterator[Seen]:
    """Yield everything below `folder` that is not a folder, and each folder that cannot be listed.

    A folder that does not exist is empty. A symbolic link is yielded, with its problem, and not
    followed, not even where it is `folder` itself.
    """
    waiting: list[tuple[Path, tuple[str, ...]]] = [(folder, ())]
    while waiting:  # a stack of our own: hostile folders may be nested deeper than Python calls
        path, parts = waiting.pop()
        seen = look(path, parts)
        if seen.status is None or not stat.S_ISDIR(seen.status.st_mode):
            if seen.there:
                yield seen
            continue
        try:
            inside = sorted(path.iterdir(), reverse=True)
        except OSError as error:
            yield Seen(path, parts, seen.status, f"cannot be listed ({error.strerror})")
            continue
        waiting += ((each, (*parts, each.name)) for each in inside)


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
