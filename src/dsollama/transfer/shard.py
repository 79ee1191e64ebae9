"""A file that an install is made of."""

from __future__ import annotations

from dataclasses import dataclass


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
