"""How a transfer is cut: every byte once, always alike, on the grid."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.gguf.merge import Piece
from dsollama.transfer.segments import (
    CELL_BYTES,
    MAX_SEGMENT,
    MIN_SEGMENT,
    Job,
    make_jobs,
    make_segments,
    segment_bytes,
)
from dsollama.transfer.shard import PlannedShard

HEADER = 7_000
SIZES = st.lists(
    st.one_of(st.integers(1, 5 * CELL_BYTES), st.integers(1, 60 * 10**9)), min_size=1, max_size=6
)


def jobs_of(sizes: list[int], *, merged: bool) -> list[Job]:
    """Return jobs for one merged file, its pieces 32 bytes aligned, or for a file each."""
    pieces, at = [], HEADER
    for index, size in enumerate(sizes):
        pieces.append(Piece(index, 100, at if merged else 0, size))
        at += -(-size // 32) * 32
    files = {index: Path("merged" if merged else str(index)) for index in range(len(sizes))}
    shards = [PlannedShard(str(index), size + 100, None, "") for index, size in enumerate(sizes)]
    return make_jobs(shards, pieces, files, dict.fromkeys(files, b""), at if merged else 0)


@settings(max_examples=200, deadline=None)
@given(SIZES, st.booleans())
def test_segments_cover_every_byte_once_and_begin_on_the_grid(
    sizes: list[int], merged: bool
) -> None:
    jobs = jobs_of(sizes, merged=merged)
    segments = make_segments(jobs)
    grid = segment_bytes(sum(sizes))
    for index, job in enumerate(jobs):
        own = [segment for segment in segments if segment.job == index]
        assert own[0].target == job.piece.target
        assert own[-1].end == job.end
        for before, after in pairwise(own):
            assert before.end == after.target
            assert after.target % grid == 0
        assert all(0 < segment.size <= grid for segment in own)
    assert [segment.job for segment in segments] == sorted(segment.job for segment in segments)
    assert sum(segment.size for segment in segments) == sum(sizes)


@given(SIZES, st.booleans())
def test_the_same_jobs_are_cut_alike(sizes: list[int], merged: bool) -> None:
    assert make_segments(jobs_of(sizes, merged=merged)) == make_segments(
        jobs_of(list(sizes), merged=merged)
    )


@given(st.integers(0, 10**12))
def test_a_segment_is_a_number_of_cells_within_its_bounds(total: int) -> None:
    size = segment_bytes(total)
    assert size % CELL_BYTES == 0
    assert MIN_SEGMENT <= size <= MAX_SEGMENT


@given(SIZES)
def test_positions_of_a_transfer_grow_and_never_meet(sizes: list[int]) -> None:
    """The window keeps bytes by position: two files must not share a cell."""
    for job, following in pairwise(jobs_of(sizes, merged=False)):
        assert following.origin % CELL_BYTES == 0
        assert following.origin >= job.origin + job.end
        assert (job.origin + job.end - 1) // CELL_BYTES < following.origin // CELL_BYTES
    for job in jobs_of(sizes, merged=True):
        assert job.origin == 0


@given(SIZES)
def test_padding_reaches_from_a_piece_to_the_next(sizes: list[int]) -> None:
    jobs = jobs_of(sizes, merged=True)
    for job, following in pairwise(jobs):
        assert job.until == following.piece.target
    for job in jobs:
        assert 0 <= job.until - job.end < 32
    for job in jobs_of(sizes, merged=False):
        assert job.until == job.end
