"""What an install is: its shards, the key of its staging folder, and its record."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dsollama.catalog.models import Target
from dsollama.gguf.split_program import find_program
from dsollama.install.choose import Choice
from dsollama.install.contents import Contents
from dsollama.install.record import Record
from dsollama.install.request import InstallRequest, Merger
from dsollama.sources.source import ListedFile
from dsollama.store.ledger import LedgerFile
from dsollama.transfer.shard import PlannedShard


def planned_shard(choice: Choice, file: ListedFile) -> PlannedShard:
    """Return a file as it is fetched."""
    listed = choice.folder is None
    url = ""
    if choice.source and listed:
        url = choice.source.address(choice.repository, choice.commit, file.path)
    return PlannedShard(file.path, file.size, file.sha256, url, listed and file.sha256 is not None)


def key_of(request: InstallRequest, choice: Choice, program: Path | None) -> str:
    """Name the bytes, not the commit: another commit with the same shards takes over.

    Without a digest it is the source, the commit and the path that name them.
    """
    merger = request.merger if program else Merger.NATIVE
    name = choice.source.name if choice.source else request.settings.endpoint
    place = [name, choice.repository, choice.commit]
    parts = [[file.size, file.sha256 or [*place, file.path]] for file in choice.files]
    return hashlib.sha256(json.dumps([merger.value, parts]).encode()).hexdigest()[:16]


def program_of(request: InstallRequest, contents: Contents) -> Path | None:
    """Return the program that merges; None where dsollama does, or nothing is merged.

    Raises:
        ProgramMissingError: it is not there.
    """
    if request.merger is not Merger.LLAMA_GGUF_SPLIT:
        return None
    found = find_program(request.settings.gguf_split)
    return found if contents.layout and not request.from_store else None


def record_of(
    request: InstallRequest, target: Target, choice: Choice, stamps: tuple[str, ...]
) -> Record:
    """Return what a stopped install needs to go on; `stamps` as `Contents.stamps`."""
    return Record(
        endpoint=choice.source.name if choice.source else "",
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        merger=request.merger.value,
        split=choice.split,
        files=tuple(LedgerFile(each.path, each.size, each.sha256) for each in choice.files),
        model=target.model.key if target.model else None,
        name=request.name,
        variants=request.variants,
        stamps=stamps,
    )
