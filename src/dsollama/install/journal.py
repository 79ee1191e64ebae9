"""What of an interrupted install is in place: one small JSON beside the staged bytes.

A claim says "these bytes were written and made durable", never "these bytes are right": a rerun
hashes all claimed bytes again before it believes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsollama.store.files import write_atomically

JOURNAL = "journal.json"
MAX_JOURNAL_BYTES = 2**20
_VERSION = 1

Claims = Mapping[int, int]
"""Bytes in place by segment number (`transfer.Segment`)."""


def read_claims(staging: Path, segment_sizes: Sequence[int]) -> dict[int, int]:
    """Return the claims of an earlier run; none where the journal is absent or not to be trusted.

    Args:
        staging: the install's folder.
        segment_sizes: bytes of every segment of this run; a claim beyond one is dropped.
    """
    claims = {}
    for number, done in _read(staging).items():
        if number < len(segment_sizes):
            claims[number] = min(done, segment_sizes[number])
    return claims


def claimed_bytes(staging: Path) -> int:
    """Return how many bytes an earlier run says are in place."""
    return sum(_read(staging).values())


def write_claims(staging: Path, claims: Claims) -> None:
    """Replace the journal; the bytes it claims must be durable already.

    Raises:
        StoreError: it cannot be written.
    """
    data = {"version": _VERSION, "done": {str(number): done for number, done in claims.items()}}
    temporary = staging / (JOURNAL + ".new")
    write_atomically(staging / JOURNAL, json.dumps(data).encode() + b"\n", temporary)


def clear_claims(staging: Path) -> None:
    """Claim nothing any more."""
    (staging / JOURNAL).unlink(missing_ok=True)


def _read(staging: Path) -> dict[int, int]:
    path = staging / JOURNAL
    try:
        if path.stat().st_size > MAX_JOURNAL_BYTES:
            return {}
        data = json.loads(path.read_bytes())
        if data["version"] != _VERSION:
            return {}
        return {
            int(number): done
            for number, done in data["done"].items()
            if number.isdecimal() and type(done) is int and done > 0
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
