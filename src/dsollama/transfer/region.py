"""What is transferred, and how it is cut, in one coordinate system. Pure.

A *position* counts the bytes of all staging files, as if they lay one behind another. A `Region` is
one shard's run of bytes; it alone converts a position to an offset in the shard or in the staging
file. A `Segment` is the part of a region that one request fetches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsollama.span import Span
from dsollama.transfer.shard import PlannedShard

CELL_BYTES = 4 * 2**20
"""The grid on which bytes are received, kept, written and digested; segments begin on it. With
1 MiB half of the time goes into threads that wake each other (measured: 4.9 s against 3.7 s)."""

MIN_SEGMENT, MAX_SEGMENT = 8 * 2**20, 64 * 2**20
"""Bytes of a segment: small enough that the reader behind does not wait long for the first one,
large enough that a request more costs nothing against a CDN's 30-100 MB/s a connection."""

SEGMENTS = 512
"""How many segments a transfer is cut into, within those bounds."""


@dataclass(frozen=True)
class Region:
    """One shard's run of bytes: where it comes from and where it goes.

    Attributes:
        shard: the file that the bytes come from.
        shards: how many shards the model has.
        span: which bytes of the shard, and their place in `file`.
        file: the staging file.
        head: the shard's bytes before the span, which are known already; they count for its
            digest.
        padding: bytes of zero padding behind the span, up to the next region of the file or the
            file's end.
        origin: position of the first byte of `file`; a multiple of CELL_BYTES.
    """

    shard: PlannedShard
    shards: int
    span: Span
    file: Path
    head: bytes
    padding: int = 0
    origin: int = 0

    @property
    def number(self) -> int:
        """Number of the shard, from 1."""
        return self.span.file + 1

    @property
    def start(self) -> int:
        """Position of the first byte."""
        return self.origin + self.span.target

    @property
    def end(self) -> int:
        """Position behind the last byte."""
        return self.start + self.span.size

    @property
    def padded_end(self) -> int:
        """Position behind the padding."""
        return self.end + self.padding

    def in_shard(self, position: int) -> int:
        """Return the offset in the shard of what goes to `position`."""
        return position - self.start + self.span.source

    def in_file(self, position: int) -> int:
        """Return the offset of `position` in the staging file."""
        return position - self.origin


@dataclass(frozen=True)
class Segment:
    """What one request fetches: a part of a region.

    Attributes:
        region: index of the region.
        start: position of the first byte.
        size: bytes.
    """

    region: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """Position behind the last byte."""
        return self.start + self.size


def make_regions(
    shards: Sequence[PlannedShard],
    spans: Sequence[Span],
    files: Mapping[int, Path],
    heads: Mapping[int, bytes],
    size: int,
) -> list[Region]:
    """Return one region for each shard that has bytes to fetch.

    Args:
        shards: all shards.
        spans: their spans, in the order of the merged file.
        files: staging file by shard index.
        heads: the bytes before each shard's span.
        size: bytes of the merged file; the last region is padded up to there if it lies in it.
    """
    regions: list[Region] = []
    origin = 0
    for number, span in enumerate(spans):
        file = files[span.file]
        if regions and regions[-1].file != file:
            before = regions[-1]
            origin += -(-before.in_file(before.end) // CELL_BYTES) * CELL_BYTES
        following = spans[number + 1].target if number + 1 < len(spans) else size
        padding = max(following - span.target - span.size, 0)
        shard, head = shards[span.file], heads[span.file]
        regions.append(Region(shard, len(shards), span, file, head, padding, origin))
    return regions


def make_segments(regions: Sequence[Region]) -> list[Segment]:
    """Cut regions into segments, in order, on a grid of the staging file.

    The same regions are always cut alike: the journals count bytes by the segment's number.
    """
    grid = segment_bytes(sum(region.span.size for region in regions))
    segments = []
    for index, region in enumerate(regions):
        at = region.start
        while at < region.end:
            end = min(at + grid - region.in_file(at) % grid, region.end)
            segments.append(Segment(index, at, end - at))
            at = end
    return segments


def segment_bytes(total: int) -> int:
    """Return the size of a segment where `total` bytes are moved."""
    return min(max(total // SEGMENTS, MIN_SEGMENT), MAX_SEGMENT) // CELL_BYTES * CELL_BYTES
