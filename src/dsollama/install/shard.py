"""A file that an install is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedShard:
    """A file to fetch: path in the repository, bytes, digest in hex if published, address."""

    path: str
    size: int
    sha256: str | None
    url: str
