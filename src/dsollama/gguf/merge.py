"""The merged file, known before a tensor byte moves: its header, and where every span goes.

What `llama-gguf-split --merge` writes (tools/gguf-split/gguf-split.cpp of llama.cpp): shard 1's
key-values in their order with `split.count` taken out and appended as u16 0, then the tensor
infos of all shards with offsets rebased, padding, and each tensor's data padded to 32 bytes.
Because tensors lie without gaps, a shard's whole data section is one span of the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from dsollama.errors import ForeignShardError, MalformedGgufError
from dsollama.gguf.encode import (
    DEFAULT_ALIGNMENT,
    UINT16,
    encode_header,
    encode_key_value,
    encode_tensor_info,
)
from dsollama.gguf.header import MAX_FILE_BYTES, Header, Tensor
from dsollama.span import Span

SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"
SPLIT_TENSORS = "split.tensors.count"


@dataclass(frozen=True)
class MergedLayout:
    """The merged file before it exists.

    Attributes:
        header: its bytes up to the tensor data.
        spans: one per shard that has tensors, in the order of the merged file.
        size: bytes of the whole file.
        gaps: (offset, size) of the padding inside the spans, which must be zero.
    """

    header: bytes = field(repr=False)
    spans: tuple[Span, ...]
    size: int
    gaps: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def header_sha256(self) -> str:
        """Digest of the merged header, in hex."""
        return hashlib.sha256(self.header).hexdigest()


def merge_layout(shards: Sequence[Header], sizes: Sequence[int]) -> MergedLayout:
    """Lay out the merge of `shards`.

    Args:
        shards: their headers, in order.
        sizes: bytes of each shard file.

    Raises:
        ForeignShardError: the split metadata says that these do not belong together.
        MalformedGgufError: a layout that llama-gguf-split would not merge rightly.
    """
    check_split_metadata(shards)
    infos: list[bytes] = []
    spans: list[Span] = []
    gaps: list[tuple[int, int]] = []
    base = 0
    for index, (shard, size) in enumerate(zip(shards, sizes, strict=True)):
        _require_plain(index, shard, size)
        if base + shard.padded_data_size > MAX_FILE_BYTES:
            raise MalformedGgufError("The shards together are larger than any file can be.")
        for tensor in shard.tensors:
            infos.append(
                encode_tensor_info(tensor.name, tensor.dims, tensor.kind, base + tensor.offset)
            )
            gap = -tensor.size % DEFAULT_ALIGNMENT
            if gap:
                gaps.append((base + tensor.offset + tensor.size, gap))
        length = min(shard.padded_data_size, size - shard.data_start)
        if length:
            spans.append(Span(index, shard.data_start, base, length))
        base += shard.padded_data_size
    header = encode_header(_merged_key_values(shards[0]), infos)
    start = len(header)
    return MergedLayout(
        header,
        tuple(Span(p.file, p.source, p.target + start, p.size) for p in spans),
        start + base,
        tuple((offset + start, size) for offset, size in gaps),
    )


def check_split_metadata(shards: Sequence[Header]) -> None:
    """Raise ForeignShardError unless the shards say of themselves that they are one set."""
    hint = "The repository's files do not belong together; try another --revision or quant."
    for index, shard in enumerate(shards):
        number, count = shard.get_int(SPLIT_NO), shard.get_int(SPLIT_COUNT)
        if (number, count) != (index, len(shards)):
            raise ForeignShardError(
                f"Shard {index + 1} of {len(shards)} calls itself number "
                f"{'none' if number is None else number + 1} of {count}.",
                hint,
            )
    names: set[bytes] = set()
    total = 0
    for index, shard in enumerate(shards):
        for tensor in shard.tensors:
            if tensor.name in names:
                raise ForeignShardError(
                    f"Shard {index + 1} repeats the tensor {_shown(tensor)} of another shard.",
                    hint,
                )
            names.add(tensor.name)
        total += len(shard.tensors)
    for index, shard in enumerate(shards):
        claimed = shard.get_int(SPLIT_TENSORS)
        if claimed != total:
            raise ForeignShardError(
                f"Shard {index + 1} belongs to a model of {claimed} tensors; "
                f"these shards together hold {total}.",
                hint,
            )


def _require_plain(index: int, shard: Header, size: int) -> None:
    """Refuse what llama-gguf-split cannot merge into a loadable file."""
    if shard.alignment != DEFAULT_ALIGNMENT:
        raise MalformedGgufError(
            f"Shard {index + 1} is aligned to {shard.alignment} bytes; llama-gguf-split merges "
            f"only an alignment of {DEFAULT_ALIGNMENT} into a file that loads."
        )
    extra = size - shard.data_start - shard.padded_data_size
    if extra > 0:
        raise MalformedGgufError(
            f"Shard {index + 1} has {extra} bytes after its last tensor.",
            "`--merger llama-gguf-split` ignores such bytes.",
        )


def _merged_key_values(first: Header) -> list[bytes]:
    kept = [
        first.raw[entry.start : entry.end] for entry in first.key_values if entry.key != SPLIT_COUNT
    ]
    return [*kept, encode_key_value(SPLIT_COUNT, UINT16, 0)]


def _shown(tensor: Tensor) -> str:
    return repr(tensor.name.decode("utf-8", "backslashreplace"))


def spans_of(layout: MergedLayout | None, size: int) -> tuple[Span, ...]:
    """Return where each file's bytes are in the merged one; a single file is it as it stands.

    Args:
        layout: of the merged file; None for a single file.
        size: bytes of the single file.
    """
    return layout.spans if layout else (Span(0, 0, 0, size),)
