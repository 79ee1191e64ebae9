"""A run of bytes: where it comes from and where it goes."""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


class Span(msgspec.Struct, frozen=True, gc=False):
    """Bytes `target` to `target + size` of one file are those from `source` on of another.

    Attributes:
        file: index of the file that they come from: a shard, or a source of the ledger.
        source: offset there, in bytes.
        target: offset where they go: in the merged file, the staging file or the blob.
        size: bytes.
    """

    file: Count
    source: Count
    target: Count
    size: Count
