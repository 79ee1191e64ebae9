"""What an install is made of: its files, where their bytes are, and what their headers say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsollama.catalog.models import Target
from dsollama.events import Listener
from dsollama.gguf.header import Header
from dsollama.gguf.merge import MergedLayout, merge_layout, spans_of
from dsollama.install.choose import Choice
from dsollama.install.from_store import find_merged
from dsollama.install.headers import facts_of, read_headers
from dsollama.install.request import InstallRequest
from dsollama.install.selection import select_files
from dsollama.manifest.layers import ModelFacts
from dsollama.sources.local import LocalFile, ShardReader, open_shards
from dsollama.store.store import Store


@dataclass(frozen=True)
class Contents:
    """What an install is made of.

    Attributes:
        choice: the files.
        local: files of this machine to read instead, by path in the repository.
        remote: whether the source may be asked.
        reader: reads the files.
        headers: of the files, in order.
        layout: the merged file; None for a single file.
    """

    choice: Choice
    local: Mapping[str, LocalFile]
    remote: bool
    reader: ShardReader
    headers: tuple[Header, ...]
    layout: MergedLayout | None

    @property
    def size(self) -> int:
        """Bytes of the merged file."""
        return self.layout.size if self.layout else self.choice.files[0].size

    @property
    def facts(self) -> ModelFacts:
        """What a manifest says of the weights."""
        return facts_of(self.headers)

    @property
    def stamps(self) -> tuple[str, ...]:
        """What tells local files from others that no published digest tells from them."""
        return tuple(
            f"{self.local[file.path].stamp} {hashlib.sha256(header.raw).hexdigest()}"
            for file, header in zip(self.choice.files, self.headers, strict=True)
            if file.path in self.local and self.local[file.path].stamp
        )


def read_contents(
    target: Target, request: InstallRequest, store: Store, listener: Listener
) -> Contents:
    """Choose the files and read their headers.

    Raises:
        DsollamaError: usage, source, shard or store errors.
    """
    choice, local = select_files(target, request, store, listener)
    remote = not (request.settings.offline or choice.folder)
    source = choice.source if remote else None
    reader = open_shards(source, choice.repository, choice.commit, local, listener)
    headers = tuple(read_headers(reader, choice.files))
    sizes = [each.size for each in choice.files]
    layout = merge_layout(headers, sizes) if choice.split else None
    if request.from_store and not choice.folder:
        local = _of_other_store(request, choice, headers, layout)
    return Contents(choice, local, remote, reader, headers, layout)


def _of_other_store(
    request: InstallRequest,
    choice: Choice,
    headers: Sequence[Header],
    layout: MergedLayout | None,
) -> dict[str, LocalFile]:
    assert request.from_store is not None  # noqa: S101 - the caller has looked
    head = layout.header if layout else headers[0].raw
    size = layout.size if layout else choice.files[0].size
    return find_merged(request.from_store, head, size, choice.files, spans_of(layout, size))
