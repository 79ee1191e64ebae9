"""What has to be fetched, and how it is cut: one job a shard, many segments a job. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsollama.gguf.merge import Piece
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
class Job:
    """One shard's run of bytes and where it goes.

    Attributes:
        shard: what is fetched.
        piece: which bytes of it, and their place in `file`.
        file: the staging file.
        head: the shard's bytes before the piece, which are known already; they count for its
            digest.
        until: where the next job's piece begins in `file`; the bytes between are zero padding.
        origin: what makes an offset in `file` a position of the whole transfer, which grows from
            job to job; a multiple of CELL_BYTES.
    """

    shard: PlannedShard
    piece: Piece
    file: Path
    head: bytes
    until: int
    origin: int = 0

    @property
    def end(self) -> int:
        """Offset in `file` behind the piece."""
        return self.piece.target + self.piece.size


@dataclass(frozen=True)
class Segment:
    """A part of a job that one connection fetches: offset in its file, and bytes."""

    job: int
    target: int
    size: int

    @property
    def end(self) -> int:
        """Offset in the file behind the segment."""
        return self.target + self.size


def make_jobs(
    shards: Sequence[PlannedShard],
    pieces: Sequence[Piece],
    files: Mapping[int, Path],
    heads: Mapping[int, bytes],
    size: int,
) -> list[Job]:
    """Return one job per shard that has bytes to fetch.

    Args:
        shards: all shards.
        pieces: their pieces, in the order of the merged file.
        files: staging file by shard index.
        heads: the bytes before each shard's piece.
        size: bytes of the merged file; the last job is padded up to there if it lies in it.
    """
    jobs: list[Job] = []
    origin = 0
    for number, piece in enumerate(pieces):
        file = files[piece.shard]
        if jobs and jobs[-1].file != file:
            origin += -(-jobs[-1].end // CELL_BYTES) * CELL_BYTES
        following = pieces[number + 1].target if number + 1 < len(pieces) else size
        until = max(following, piece.target + piece.size)
        jobs.append(Job(shards[piece.shard], piece, file, heads[piece.shard], until, origin))
    return jobs


def make_segments(jobs: Sequence[Job]) -> list[Segment]:
    """Cut jobs into segments, in order; the same jobs are always cut alike, for the journal."""
    size = segment_bytes(sum(job.piece.size for job in jobs))
    segments = []
    for index, job in enumerate(jobs):
        at = job.piece.target
        while at < job.end:
            end = min((at // size + 1) * size, job.end)
            segments.append(Segment(index, at, end - at))
            at = end
    return segments


def segment_bytes(total: int) -> int:
    """Return the size of a segment where `total` bytes are moved."""
    return min(max(total // SEGMENTS, MIN_SEGMENT), MAX_SEGMENT) // CELL_BYTES * CELL_BYTES
