"""The seam for where bytes come from: a source lists a model's files and opens a range of one.

The Hub is one (`huggingface`), a plain folder on a web server another (`web_folder`); `registry`
knows all of them. Files of this machine stand in for a source's files (`local`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from dsollama.errors import HubOfflineError
from dsollama.events import Listener

MAX_PATH = 1024
"""Characters of a file's path; a longer one is not looked at."""

MAX_FILE_BYTES = 2**63 - 1


@dataclass(frozen=True)
class ListedFile:
    """One file of a repository.

    Attributes:
        path: its path in the repository; never used as a path on this machine.
        size: bytes.
        sha256: digest that the source publishes, in hex; None where it publishes none.
    """

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """A repository at one commit.

    Attributes:
        name: OWNER/REPO.
        commit: what pins the files: 40 hex digits.
        files: by path.
    """

    name: str
    commit: str
    files: Mapping[str, ListedFile]


class Stream(Protocol):
    """Bytes of a file in order; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """Give up what it holds."""
        ...

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view` with the next bytes, at least one; return how many."""
        ...


class Reader(Protocol):
    """Opens ranges of the files of one repository at one commit; threads may share it."""

    def open(self, path: str, start: int, end: int, file_size: int) -> Stream:
        """Return a stream of bytes `start` to `end` (exclusive) of `path`, of `file_size` bytes."""
        ...

    def read(self, path: str, start: int, end: int, file_size: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of `path`."""
        ...

    def cancel(self) -> None:
        """End every read that is under way, and let none begin."""
        ...


class Source(Protocol):
    """Where a model's files come from."""

    @property
    def name(self) -> str:
        """What the ledger and the journals call it; `registry.source_named` takes it back."""
        ...

    @property
    def keeps_commits(self) -> bool:
        """Whether the files of an older commit can still be had."""
        ...

    def listing(self, repository: str, revision: str | None) -> Listing:
        """Return the files of `repository` at `revision`; None is the newest.

        Raises:
            HubError: it does not list them.
        """
        ...

    def reader(self, repository: str, commit: str, listener: Listener) -> Reader:
        """Return what opens ranges of the files; `listener` hears of retries."""
        ...

    def address(self, repository: str, commit: str, path: str) -> str:
        """Return the address of a file, for people."""
        ...

    def install_words(self, commit: str) -> tuple[str, Sequence[str]]:
        """Return what makes `dsollama install` take the files from here, at `commit`.

        Returns:
            Settings to write before the command, quoted for a shell, and options of it.
        """
        ...


def read_all(stream: Stream, size: int) -> bytes:
    """Return the next `size` bytes of a stream."""
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        filled += stream.readinto(buffer[filled:])
    return buffer.tobytes()


def is_sound_path(path: str) -> bool:
    """Whether a file's path is one that an address and a terminal can have."""
    parts = path.split("/")
    return path.isprintable() and len(path) <= MAX_PATH and not {"", ".", ".."} & set(parts)


def offline_error(needed: str) -> HubOfflineError:
    """Return the error of a network that is needed and must not be used."""
    return HubOfflineError(
        f"HF_HUB_OFFLINE is set and {needed}.", "Unset HF_HUB_OFFLINE for this command."
    )
