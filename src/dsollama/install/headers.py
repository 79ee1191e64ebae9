"""The headers of a model's files, read by ranges: enough to plan an install, or a machine."""

from __future__ import annotations

from collections.abc import Sequence

from dsollama.errors import ShardError
from dsollama.gguf.header import Header, Room, read_header
from dsollama.gguf.loadable import architecture
from dsollama.manifest.layers import ModelFacts
from dsollama.sources.source import ListedFile, Reader

FIRST_READ = 2**20
"""Bytes of a shard read at first for its header; shard 1's is read on from there."""

REST_READ = 2**16


def read_headers(reader: Reader, files: Sequence[ListedFile]) -> list[Header]:
    """Return the header of each file, read by ranges.

    Raises:
        HubError: the source does not give them.
        ShardError: one is no header, or all together are too large.
    """
    headers: list[Header] = []
    left = Room()
    for index, file in enumerate(files):
        size = FIRST_READ if index == 0 else REST_READ
        try:
            headers.append(_read_header(reader, file, size))
            left = left.after(headers[-1])
        except ShardError as error:
            raise type(error)(
                f"Shard {index + 1} of {len(files)} ({file.path}): {error}", error.hint
            ) from error
    return headers


def _read_header(reader: Reader, file: ListedFile, first: int) -> Header:
    return read_header(
        lambda start, end: reader.read(file.path, start, end, file.size), file.size, first
    )


def facts_of(headers: Sequence[Header]) -> ModelFacts:
    """Return what a manifest says of the weights."""
    return ModelFacts(
        architecture(headers),
        sum(tensor.elements for header in headers for tensor in header.tensors),
        headers[0].get_int("general.file_type"),
    )
