"""Padding between tensors, which a merged file has as zeros, whatever the shards have there.

llama-gguf-split writes zeros, and so the merged file's digest is made of zeros. A shard's digest is
made of what was published. So the staged file keeps that until every shard is verified, and gets
its zeros last; what they replace is kept until the file is a blob, for a rerun digests the shards
once more.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from dsollama.span import Count, Span
from dsollama.store.files import read_small, store_failures, write_atomically

RECORD = "padding.json"
MAX_RECORD_BYTES = 16 * 2**20
Gap = tuple[int, int]
"""Offset in the merged file, and bytes."""


class Padding:
    """Where a merged file must be zero."""

    def __init__(self, gaps: Sequence[Gap]) -> None:
        """Take the gaps, in order (`MergedLayout.gaps`)."""
        self._gaps = gaps
        self._starts = [offset for offset, _ in gaps]

    def zeroed(self, at: int, view: memoryview) -> memoryview:
        """Return bytes of the file from `at` on with zeros in the gaps; no copy if they have."""
        end = at + len(view)
        first = max(bisect_right(self._starts, at) - 1, 0)
        changed: bytearray | None = None
        for offset, size in self._gaps[first:]:
            if offset >= end:
                break
            start, stop = max(offset, at) - at, min(offset + size, end) - at
            if start < stop and bytes(view[start:stop]).strip(b"\0"):
                changed = changed or bytearray(view)
                changed[start:stop] = bytes(stop - start)
        return memoryview(changed) if changed is not None else view


def write_zeros(merged: Path, staging: Path, gaps: Sequence[Gap]) -> dict[int, bytes]:
    """Write zeros into the gaps, durably; return by offset what was there and was not zero.

    Raises:
        StoreError: it cannot be read or written.
    """
    with store_failures(merged):
        handle = os.open(merged, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            read = ((offset, os.pread(handle, size, offset)) for offset, size in gaps)
            published = {offset: data for offset, data in read if data.strip(b"\0")}
            if published:
                record = msgspec.json.encode(published)
                write_atomically(staging / RECORD, record, staging / (RECORD + ".new"))
                _write(handle, {offset: bytes(len(data)) for offset, data in published.items()})
        finally:
            os.close(handle)
    return published


def put_back_published(merged: Path, staging: Path) -> None:
    """Undo `write_zeros` of a run that was stopped behind it, so that its shards can be verified.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        record = read_small(staging / RECORD, MAX_RECORD_BYTES, follow=False)
        published = msgspec.json.decode(record, type=dict[Count, bytes])
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError):
        published = {}
    with store_failures(merged):
        if merged.exists():
            handle = os.open(merged, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                size = os.fstat(handle).st_size
                _write(handle, {at: data for at, data in published.items() if at < size})
            finally:
                os.close(handle)
        (staging / RECORD).unlink(missing_ok=True)


def spans_without(spans: Sequence[Span], zeros: Mapping[int, bytes]) -> Iterator[Span]:
    """Yield the runs of the spans that are the shards' own bytes, between the zeros."""
    for span in spans:
        at, end = span.target, span.target + span.size
        for offset in sorted(each for each in zeros if span.target <= each < end):
            if at < offset:
                yield Span(span.file, span.source + at - span.target, at, offset - at)
            at = offset + len(zeros[offset])
        if at < end:
            yield Span(span.file, span.source + at - span.target, at, end - at)


def _write(handle: int, parts: Mapping[int, bytes]) -> None:
    for offset, data in parts.items():
        os.pwrite(handle, data, offset)
    os.fsync(handle)
