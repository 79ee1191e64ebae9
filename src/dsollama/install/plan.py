"""The plan of an install: complete, frozen, and printable before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsollama.events import Listener
from dsollama.gguf.header import Header
from dsollama.gguf.merge import MergedLayout, spans_of
from dsollama.install.naming import PlannedModel
from dsollama.install.record import Record
from dsollama.install.replacing import Replaced
from dsollama.install.request import Merger
from dsollama.manifest.layers import ModelFacts
from dsollama.sources.local import LocalFile, ShardReader, open_shards
from dsollama.sources.source import Source
from dsollama.span import Span
from dsollama.transfer.shard import PlannedShard


@dataclass(frozen=True)
class DiskState:
    """What a store has of a planned install at one moment; `state.look` looks again.

    Attributes:
        installed: `sha256:HEX` of the blob where this very model is in the store already.
        resumed: bytes that an earlier run left in place.
        needed: bytes of disk that will be taken.
        free: bytes of disk that are free.
    """

    installed: str | None = None
    resumed: int = 0
    needed: int = 0
    free: int = 0


@dataclass(frozen=True)
class InstallPlan:
    """Everything an install will do.

    Attributes:
        source: has listed the files, and gives them; None if nobody has listed them.
        repository: OWNER/REPO.
        commit: full hash that every file is read at; NO_COMMIT if nobody has listed them.
        quant: label as the repository writes it.
        shards: files to fetch, in order.
        merger: which merger; a single file is copied by either.
        size: bytes of the model's blob.
        facts: architecture, parameters and file type of the weights.
        store: the OLLAMA_MODELS folder.
        key: names the staging folder; the same for the same bytes.
        models: names to write.
        replaces: what has these names and would be lost.
        state: what the store had of it when it was planned.
        notes: where the repository's own settings differ from ours, a sentence each.
        layout: the merged file; None for a single file or the other merger.
        headers: the shards' headers.
        record: what a stopped install needs to go on.
        program: path of llama-gguf-split, for that merger.
        local: files of this machine to read instead, by the shard's path in the repository.
        remote: whether the source may be asked.
        consume: whether local files are deleted once they are merged and on the disk.
        folder: where the files are, if nobody has listed them.
        ollama_host: OLLAMA_HOST, where an Ollama may be about to start.
    """

    source: Source | None
    repository: str
    commit: str
    quant: str
    shards: tuple[PlannedShard, ...]
    merger: Merger
    size: int
    facts: ModelFacts
    store: Path
    key: str
    models: tuple[PlannedModel, ...]
    replaces: tuple[Replaced, ...]
    state: DiskState
    notes: tuple[str, ...]
    layout: MergedLayout | None = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    record: Record = field(repr=False)
    program: Path | None = None
    local: Mapping[str, LocalFile] = field(default_factory=dict)
    remote: bool = True
    consume: bool = False
    folder: Path | None = None
    ollama_host: str | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that it gives."""
        return tuple(str(model.name) for model in self.models)

    @property
    def endpoint(self) -> str:
        """The source's name; empty if nobody has listed the files."""
        return self.source.name if self.source else ""

    def open_shards(self, listener: Listener) -> ShardReader:
        """Return what reads the shards."""
        source = self.source if self.remote else None
        return open_shards(source, self.repository, self.commit, self.local, listener)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Files that are compared with no published digest, by their path in the repository."""
        return tuple(shard.path for shard in self.shards if not shard.published)

    @property
    def spans(self) -> tuple[Span, ...]:
        """Where each shard's bytes are in the merged file; a single file is it as it stands."""
        return spans_of(self.layout, self.size)

    @property
    def head(self) -> bytes:
        """How the merged file begins."""
        return self.layout.header if self.layout else self.headers[0].raw

    @property
    def staged_spans(self) -> tuple[Span, ...]:
        """Where each shard's bytes go in the staging file, or files of llama-gguf-split."""
        if self.layout and not self.program:
            return self.layout.spans
        return tuple(Span(index, 0, 0, shard.size) for index, shard in enumerate(self.shards))

    @property
    def to_copy(self) -> int:
        """Bytes of files that this machine has already."""
        return (
            0 if self.state.installed else sum(s.size for s in self.shards if s.path in self.local)
        )

    @property
    def to_move(self) -> int:
        """Bytes that have to come over the network."""
        total = sum(shard.size for shard in self.shards)
        return 0 if self.state.installed else max(total - self.to_copy - self.state.resumed, 0)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; sizes in bytes."""
        return {
            "endpoint": self.endpoint,
            "repository": self.repository,
            "commit": self.commit,
            "quant": self.quant,
            "shards": [vars(shard) for shard in self.shards],
            "merger": self.merger.value if len(self.shards) > 1 else "none",
            "merged_header_sha256": self.layout.header_sha256 if self.layout else None,
            "size": self.size,
            "architecture": self.facts.family,
            "parameters": self.facts.parameters,
            "store": str(self.store),
            "already_installed": self.state.installed,
            "bytes_resumed": self.state.resumed,
            "bytes_to_move": self.to_move,
            "bytes_to_copy": self.to_copy,
            "local_files": {path: str(file.path) for path, file in self.local.items()},
            "unchecked": list(self.unchecked),
            "consume": self.consume,
            "disk_needed": self.state.needed,
            "disk_free": self.state.free,
            "models": [model.to_json() for model in self.models],
            "replaces": [each.to_json() for each in self.replaces],
            "notes": list(self.notes),
        }
