"""What of an interrupted install is in place: two small JSON files beside the staged bytes.

A claim says "these bytes are in the file", never "these bytes are right": a rerun digests all
claimed bytes before it believes them. journal.json claims what is on the disk for good and
survives a power loss. progress.json claims what was handed to the system, which survives the
death of the process but not that of the machine; so it holds only as long as the machine has not
been started again, and costs no waiting for the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from dsollama.store.files import read_small, replace_file, write_atomically

JOURNAL = "journal.json"
PROGRESS = "progress.json"
MAX_JOURNAL_BYTES = 2**20
_VERSION = 2
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Count = Annotated[int, msgspec.Meta(ge=0)]
Claims = Mapping[int, int]
"""Bytes in place by segment number (`segments.Segment`)."""


class _Journal(msgspec.Struct, forbid_unknown_fields=True):
    done: dict[Count, Count]
    boot: str = ""
    version: int = _VERSION


def read_claims(staging: Path, segment_sizes: Sequence[int]) -> dict[int, int]:
    """Return the claims of an earlier run; none where there are none, or none to be trusted.

    Args:
        staging: the install's folder.
        segment_sizes: bytes of every segment of this run; a claim beyond one is dropped.
    """
    claims = _claims(staging)
    return {
        number: min(done, segment_sizes[number])
        for number, done in claims.items()
        if number < len(segment_sizes)
    }


def claimed_bytes(staging: Path) -> int:
    """Return how many bytes an earlier run says are in place."""
    return sum(_claims(staging).values())


def has_claims(staging: Path) -> bool:
    """Whether an earlier run left something to go on from."""
    return any((staging / name).exists() for name in (JOURNAL, PROGRESS))


def write_claims(staging: Path, claims: Claims) -> None:
    """Replace the lasting journal; the bytes it claims must be durable already.

    Raises:
        StoreError: it cannot be written.
    """
    path = staging / JOURNAL
    write_atomically(path, _encode(_Journal(dict(claims))), staging / (JOURNAL + ".new"))


def write_progress(staging: Path, claims: Claims) -> None:
    """Replace the journal of this start of the machine; nothing is waited for.

    Raises:
        StoreError: it cannot be written.
    """
    boot = _boot_id()
    if boot is not None:
        data = _encode(_Journal(dict(claims), boot))
        replace_file(staging / PROGRESS, data, staging / (PROGRESS + ".new"))


def end_progress(staging: Path) -> None:
    """Let the lasting journal, which has everything now, be the only one."""
    (staging / PROGRESS).unlink(missing_ok=True)


def clear_claims(staging: Path) -> None:
    """Claim nothing any more."""
    for name in (JOURNAL, PROGRESS):
        (staging / name).unlink(missing_ok=True)


def _claims(staging: Path) -> dict[int, int]:
    claims: dict[int, int] = {}
    for name, boot in ((JOURNAL, ""), (PROGRESS, _boot_id())):
        journal = _read(staging / name)
        if journal is not None and journal.boot == boot:
            for number, done in journal.done.items():
                claims[number] = max(done, claims.get(number, 0))
    return claims


def _encode(journal: _Journal) -> bytes:
    return msgspec.json.encode(journal) + b"\n"


def _boot_id() -> str | None:
    """What names this start of the machine; None where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None


def _read(path: Path) -> _Journal | None:
    try:
        journal = msgspec.json.decode(
            read_small(path, MAX_JOURNAL_BYTES, follow=False), type=_Journal
        )
    except (OSError, ValueError, RecursionError):  # msgspec's own are ValueErrors
        return None
    return journal if journal.version == _VERSION else None
