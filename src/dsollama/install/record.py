"""What a stopped install was to do, kept beside its bytes.

So it goes on with the same files, whatever the Hub has by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import structs

from dsollama.addresses import public_address
from dsollama.store.files import read_small, write_atomically
from dsollama.store.ledger import NO_COMMIT, Commit, LedgerFile, Short, Text
from dsollama.store.stopped import CONSUMED, MAX_INSTALLS
from dsollama.store.store import Store
from dsollama.store.walk import list_names
from dsollama.transfer.journal import claimed_bytes, clear_claims

RECORD = "install.json"
MAX_RECORD_BYTES = 2 * 2**20
"""4,096 shards have 1.2 MB."""

MAX_ALL_BYTES = 64 * 2**20
"""Of all records that one command reads."""

_MAX_FILES = 2**12
_VERSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An install under way.

    Attributes:
        endpoint: the Hub, without a login.
        repository: OWNER/REPO.
        commit: full hash that the files are read at.
        quant: label as the repository writes it.
        merger: which merger.
        split: whether the files are shards.
        files: in order.
        model: the catalog's key of the model, if it has one.
        name: `--name`, if it was given.
        variants: `--variants`.
        stamps: of the local files that are compared with no digest (`stamp_of`), by the
            files' order; what is staged is of these very files.
    """

    endpoint: Text
    repository: Short
    commit: Commit
    quant: Short
    merger: Short
    split: bool
    files: Annotated[tuple[LedgerFile, ...], msgspec.Meta(max_length=_MAX_FILES)]
    model: Short | None
    name: Text | None
    variants: tuple[Short, ...]
    stamps: Annotated[tuple[Text, ...], msgspec.Meta(max_length=_MAX_FILES)] = ()
    version: int = _VERSION

    def __post_init__(self) -> None:
        """Drop a login from the Hub's address: an earlier dsollama kept it."""
        structs.force_setattr(self, "endpoint", public_address(self.endpoint))

    @property
    def target(self) -> str:
        """What `dsollama install` is given to go on with this."""
        return self.quant if self.model else f"hf.co/{self.repository}:{self.quant}"

    @property
    def listed(self) -> bool:
        """Whether a Hub has listed the files."""
        return self.commit != NO_COMMIT


def resumable_bytes(staging: Path, record: Record) -> int:
    """Return how many bytes an earlier run left that this install can go on from."""
    return claimed_bytes(staging) if _is_of_same_files(staging, record) else 0


def write_record(staging: Path, record: Record) -> None:
    """Keep the record in the staging folder of its install.

    What is staged of other files of this machine is forgotten: no digest would tell them apart.

    Raises:
        StoreError: it cannot be written.
    """
    if not _is_of_same_files(staging, record):
        clear_claims(staging)
    data = msgspec.json.encode(record) + b"\n"
    write_atomically(staging / RECORD, data, staging / (RECORD + ".new"))


def stopped_installs(store: Store) -> Iterator[tuple[str, Record]]:
    """Yield key and record of every install in the staging folder that can be read."""
    folder = store.staging("x").parent
    left = MAX_ALL_BYTES
    try:
        names = list_names(folder, MAX_INSTALLS)
    except OSError:
        return
    for name in names:
        record, size = _read(folder / name / RECORD, left)
        left -= size
        if record is not None and record.files:
            yield name, record


def _read(path: Path, limit: int = MAX_RECORD_BYTES) -> tuple[Record | None, int]:
    """Return a record, None where it cannot be read, and its bytes."""
    size = 0
    try:
        data = read_small(path, min(limit, MAX_RECORD_BYTES), follow=False)
        size = len(data)
        record = msgspec.json.decode(data, type=Record)
    except (OSError, ValueError, RecursionError):  # msgspec's own are ValueErrors
        return None, size
    return record if record.version == _VERSION else None, size


def _is_of_same_files(staging: Path, record: Record) -> bool:
    """Whether what is staged came from the same local files, as far as digests do not tell."""
    if not record.stamps:
        return True
    before, _ = _read(staging / RECORD)
    return before is not None and before.stamps == record.stamps


def mark_consumed(staging: Path) -> None:
    """Say that the staged bytes are the only ones: `dsollama gc` then leaves them alone.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(staging / CONSUMED, b"", staging / (CONSUMED + ".new"))
