"""How a transfer is cut: every byte once, always alike, on the grid."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.span import Span
from dsollama.transfer.region import (
    CELL_BYTES,
    MAX_SEGMENT,
    MIN_SEGMENT,
    Region,
    make_regions,
    make_segments,
    segment_bytes,
)
from dsollama.transfer.shard import PlannedShard

HEADER = 7_000
SIZES = st.lists(
    st.one_of(st.integers(1, 5 * CELL_BYTES), st.integers(1, 60 * 10**9)), min_size=1, max_size=6
)


def regions_of(sizes: list[int], *, merged: bool) -> list[Region]:
    """Return regions of one merged file, its spans 32 bytes aligned, or of a file each."""
    spans, at = [], HEADER
    for index, size in enumerate(sizes):
        spans.append(Span(index, 100, at if merged else 0, size))
        at += -(-size // 32) * 32
    files = {index: Path("merged" if merged else str(index)) for index in range(len(sizes))}
    shards = [PlannedShard(str(index), size + 100, None, "") for index, size in enumerate(sizes)]
    return make_regions(shards, spans, files, dict.fromkeys(files, b""), at if merged else 0)


@settings(max_examples=200, deadline=None)
@given(SIZES, st.booleans())
def test_segments_cover_every_byte_once_and_begin_on_the_grid(
    sizes: list[int], merged: bool
) -> None:
    regions = regions_of(sizes, merged=merged)
    segments = make_segments(regions)
    grid = segment_bytes(sum(sizes))
    for index, region in enumerate(regions):
        own = [segment for segment in segments if segment.region == index]
        assert own[0].start == region.start
        assert own[-1].end == region.end
        for before, after in pairwise(own):
            assert before.end == after.start
            assert region.in_file(after.start) % grid == 0
        assert all(0 < segment.size <= grid for segment in own)
    numbers = [segment.region for segment in segments]
    assert numbers == sorted(numbers)
    assert sum(segment.size for segment in segments) == sum(sizes)


@given(SIZES, st.booleans())
def test_the_same_regions_are_cut_alike(sizes: list[int], merged: bool) -> None:
    assert make_segments(regions_of(sizes, merged=merged)) == make_segments(
        regions_of(list(sizes), merged=merged)
    )


@pytest.mark.parametrize(
    ("merged", "cuts"),
    [
        (True, [(0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (2, 4), (2, 5)]),
        (False, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]),
    ],
)
def test_segments_are_cut_as_every_dsollama_has_cut_them(
    merged: bool, cuts: list[tuple[int, int]]
) -> None:
    """A staging folder of an earlier version is taken over: its journals count by segment."""
    regions = regions_of([20 * 2**20, 17 * 2**20, 8 * 2**20], merged=merged)
    found = [
        (each.region, regions[each.region].in_file(each.start) // MIN_SEGMENT)
        for each in make_segments(regions)
    ]
    assert found == cuts


@given(st.integers(0, 10**12))
def test_a_segment_is_a_number_of_cells_within_its_bounds(total: int) -> None:
    size = segment_bytes(total)
    assert size % CELL_BYTES == 0
    assert MIN_SEGMENT <= size <= MAX_SEGMENT


@given(SIZES)
def test_positions_of_a_transfer_grow_and_never_meet(sizes: list[int]) -> None:
    """The ring keeps bytes by position: two files must not share a cell."""
    for region, following in pairwise(regions_of(sizes, merged=False)):
        assert following.origin % CELL_BYTES == 0
        assert following.origin >= region.end
        assert (region.end - 1) // CELL_BYTES < following.start // CELL_BYTES
    for region in regions_of(sizes, merged=True):
        assert region.origin == 0


@given(SIZES, st.booleans(), st.integers(0, 10**12))
def test_a_region_converts_positions(sizes: list[int], merged: bool, ahead: int) -> None:
    for region in regions_of(sizes, merged=merged):
        span = region.span
        ahead = min(ahead, span.size)
        assert region.in_shard(region.start + ahead) == span.source + ahead
        assert region.in_file(region.start + ahead) == span.target + ahead
        assert region.end == region.start + span.size


@given(SIZES)
def test_padding_reaches_from_a_piece_to_the_next(sizes: list[int]) -> None:
    regions = regions_of(sizes, merged=True)
    for region, following in pairwise(regions):
        assert region.padded_end == following.start
    for region in regions:
        assert 0 <= region.padding < 32
    for region in regions_of(sizes, merged=False):
        assert region.padding == 0
