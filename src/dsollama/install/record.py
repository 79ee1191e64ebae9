"""What a stopped install was to do, kept beside its bytes.

So it goes on with the same files, whatever the Hub has by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import structs

from dsollama.addresses import public_address
from dsollama.install.journal import claimed_bytes, clear_claims
from dsollama.store.files import read_small, write_atomically
from dsollama.store.ledger import NO_COMMIT, Commit, Source, Text
from dsollama.store.stopped import CONSUMED
from dsollama.store.store import Store

RECORD = "install.json"
MAX_RECORD_BYTES = 4 * 2**20
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
    repository: Text
    commit: Commit
    quant: Text
    merger: Text
    split: bool
    files: tuple[Source, ...]
    model: Text | None
    name: Text | None
    variants: tuple[Text, ...]
    stamps: tuple[Text, ...] = ()
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
    for path in sorted(folder.glob(f"*/{RECORD}")):
        record = _read(path)
        if record is not None and record.files:
            yield path.parent.name, record


def _read(path: Path) -> Record | None:
    try:
        data = read_small(path, MAX_RECORD_BYTES, follow=False)
        record = msgspec.json.decode(data, type=Record)
    except (OSError, ValueError, RecursionError):  # msgspec's own are ValueErrors
        return None
    return record if record.version == _VERSION else None


def _is_of_same_files(staging: Path, record: Record) -> bool:
    """Whether what is staged came from the same local files, as far as digests do not tell."""
    if not record.stamps:
        return True
    before = _read(staging / RECORD)
    return before is not None and before.stamps == record.stamps


def mark_consumed(staging: Path) -> None:
    """Say that the staged bytes are the only ones: `dsollama gc` then leaves them alone.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(staging / CONSUMED, b"", staging / (CONSUMED + ".new"))
