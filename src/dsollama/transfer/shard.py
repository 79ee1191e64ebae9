"""A file that a model is made of, and what gives its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dsollama.sources.source import Stream


@dataclass(frozen=True)
class PlannedShard:
    """A file to fetch.

    Attributes:
        path: in the repository.
        size: bytes.
        sha256: the digest that it must have, in hex; None where nobody says one.
        url: address; empty where no Hub has listed it.
        published: whether that digest is a Hub's, of the files that it lists.
    """

    path: str
    size: int
    sha256: str | None
    url: str
    published: bool = True


class ShardSource(Protocol):
    """Where the bytes of shards come from; many threads share one."""

    def open(self, path: str, start: int, end: int, file_size: int) -> Stream:
        """Return a stream of bytes `start` to `end` (exclusive) of `path`, of `file_size` bytes.

        Raises:
            DsollamaError: it cannot be had.
        """
        ...

    def cancel(self) -> None:
        """End every read that is under way."""
        ...

    def reject(self, path: str) -> str | None:
        """Take note that the bytes of `path` were wrong.

        Returns:
            What `open` gives from now on, as a sentence; None if it has nothing better.
        """
        ...
