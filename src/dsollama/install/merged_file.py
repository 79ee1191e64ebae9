"""A finished merged file, and what the ledger keeps of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from dsollama import __version__
from dsollama.install.plan import InstallPlan
from dsollama.store.ledger import LedgerEntry, LedgerFile
from dsollama.transfer.digests import BLOCK_BYTES
from dsollama.transfer.padding import spans_without


@dataclass(frozen=True)
class MergedFile:
    """A finished, durable `merged.gguf` in the staging folder.

    `moved` bytes came from the Hub and `copied` from files of this machine; `zeros` stand where the
    shards have these bytes, by offset.
    """

    digest: str
    prefixes: tuple[str, ...]
    moved: int
    copied: int
    zeros: Mapping[int, bytes]


def ledger_entry(plan: InstallPlan, merged: MergedFile, names: tuple[str, ...]) -> LedgerEntry:
    """Return what the ledger keeps of the merged file: where it came from, as far as is proved."""
    installed = datetime.now(UTC).isoformat(timespec="seconds")
    spans = plan.spans
    return LedgerEntry(
        size=plan.size,
        endpoint=plan.endpoint,
        repository=plan.repository,
        commit=plan.commit,
        quant=plan.quant,
        sources=tuple(
            LedgerFile(each.path, each.size, each.sha256 if each.published else None)
            for each in plan.shards
        ),
        spans=tuple(spans_without(spans, merged.zeros)),
        block=BLOCK_BYTES,
        prefixes=merged.prefixes,
        names=names,
        installed=installed,
        dsollama=__version__,
        folder=os.fsencode(plan.folder or "").decode("utf-8", "replace"),
    )
