"""Blobs that may be a certain model's weights, whatever anybody has written down of them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from dsollama.store.files import open_regular
from dsollama.store.walk import MAX_SEEN, list_names

_MAX_ALIKE = 64
"""Blobs of the very size whose beginning is compared; of weights there is one, or a few."""


def blobs_alike(root: Path, size: int, head: bytes) -> list[Path]:
    """Return the blobs of a store that have `size` bytes and begin with `head`.

    Args:
        root: the store's folder, which may not exist.
        size: in bytes.
        head: how the file begins.
    """
    try:
        names = list_names(root / "blobs", MAX_SEEN)
    except OSError:
        return []
    paths = (root / "blobs" / name for name in names if name.startswith("sha256-"))
    found = islice((path for path in paths if _has_size(path, size)), _MAX_ALIKE)
    return [path for path in found if _begins(path, head)]


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _begins(path: Path, head: bytes) -> bool:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False
