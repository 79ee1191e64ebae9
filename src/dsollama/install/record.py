"""What a stopped install was to do, kept beside its bytes.

So it goes on with the same files, whatever the Hub has by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from dsollama.store.files import read_small, write_atomically
from dsollama.store.ledger import Commit, Source, Text
from dsollama.store.stopped import CONSUMED
from dsollama.store.store import Store

RECORD = "install.json"
MAX_RECORD_BYTES = 4 * 2**20
_VERSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An install under way.

    Attributes:
        endpoint: the Hub.
        repository: OWNER/REPO.
        commit: full hash that the files are read at.
        quant: label as the repository writes it.
        merger: which merger.
        split: whether the files are shards.
        files: in order.
        model: the catalog's key of the model, if it has one.
        name: `--name`, if it was given.
        variants: `--variants`.
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
    version: int = _VERSION

    @property
    def target(self) -> str:
        """What `dsollama install` is given to go on with this."""
        return self.quant if self.model else f"hf.co/{self.repository}:{self.quant}"


def write_record(staging: Path, record: Record) -> None:
    """Keep the record in the staging folder of its install.

    Raises:
        StoreError: it cannot be written.
    """
    data = msgspec.json.encode(record) + b"\n"
    write_atomically(staging / RECORD, data, staging / (RECORD + ".new"))


def stopped_installs(store: Store) -> Iterator[tuple[str, Record]]:
    """Yield key and record of every install in the staging folder that can be read."""
    folder = store.staging("x").parent
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            data = read_small(path, MAX_RECORD_BYTES, follow=False)
            record = msgspec.json.decode(data, type=Record)
        except (OSError, ValueError, RecursionError):  # msgspec's own are ValueErrors
            continue
        if record.version == _VERSION and record.files:
            yield path.parent.name, record


def mark_consumed(staging: Path) -> None:
    """Say that the staged bytes are the only ones: `dsollama gc` then leaves them alone.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(staging / CONSUMED, b"", staging / (CONSUMED + ".new"))
