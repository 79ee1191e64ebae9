"""The buffer: what is written is what is viewed, from memory or not, in one file or in several."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError
from dsollama.transfer.buffer import Buffer
from dsollama.transfer.digests import READ_AHEAD
from dsollama.transfer.region import CELL_BYTES
from dsollama.transfer.ring import CELLS
from in_memory import make_shards, merged_regions, separate_regions

SHARD = 2 * CELL_BYTES + 1000
RING = CELLS * CELL_BYTES
DATA = random.Random(1).randbytes(CELL_BYTES)


def receiving(data: bytes) -> Callable[[memoryview], int]:
    def receive(room: memoryview) -> int:
        room[: len(data)] = data
        return len(data)

    return receive


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    """A buffer of one file that is longer than the ring."""
    made = Buffer(merged_regions(make_shards(SHARD), tmp_path / "merged.gguf"))
    made.open()
    yield made
    made.close()


@pytest.mark.parametrize("position", [0, 100, CELL_BYTES - 10, RING, RING + 100])
def test_what_is_written_is_viewed_wherever_it_lies(
    position: int, buffer: Buffer, tmp_path: Path
) -> None:
    wanted = min(500, CELL_BYTES - position % CELL_BYTES)
    assert buffer.write(position, position + 500, receiving(DATA[:wanted])) == wanted
    assert buffer.view(position, position + wanted) == DATA[:wanted]
    assert buffer.view(position + 3, position + 5) == DATA[3:5]
    with (tmp_path / "merged.gguf").open("rb") as file:
        file.seek(position)
        assert file.read() == DATA[:wanted]
    assert buffer.reaches(position) == (position < RING)


def test_what_was_received_close_ahead_is_not_read_back(buffer: Buffer, tmp_path: Path) -> None:
    buffer.write(0, 10, receiving(DATA[:10]))
    (tmp_path / "merged.gguf").write_bytes(b"")
    assert buffer.view(0, 10) == DATA[:10]


def test_room_ends_with_the_cell_and_at_the_limit(buffer: Buffer) -> None:
    rooms: list[int] = []

    def receive(room: memoryview) -> int:
        rooms.append(len(room))
        return 0

    for start in (0, RING):
        buffer.write(start + 10, start + 30, receive)
        buffer.write(start + CELL_BYTES - 5, start + CELL_BYTES + 5, receive)
        buffer.write(start + CELL_BYTES, start + 3 * CELL_BYTES, receive)
    assert rooms == [20, 5, CELL_BYTES] * 2


def test_a_view_ends_with_the_cell(buffer: Buffer) -> None:
    for start in (0, RING):
        for at in (start, start + CELL_BYTES):
            buffer.write(at, at + CELL_BYTES, receiving(DATA))
        assert buffer.view(start + CELL_BYTES - 7, start + 2 * CELL_BYTES) == DATA[-7:]


def test_what_does_not_come_gives_its_room_back(buffer: Buffer) -> None:
    def fail(_room: memoryview) -> int:
        raise MemoryError

    for position in (0, RING):
        with pytest.raises(MemoryError):
            buffer.write(position, position + 10, fail)
        assert buffer.write(position, position + 10, receiving(DATA[:10])) == 10
        assert buffer.view(position, position + 10) == DATA[:10]


def test_views_stay_while_as_many_are_read_as_the_digests_read(buffer: Buffer) -> None:
    for number in range(READ_AHEAD + 1):
        data = DATA[number * 100 :][:100]
        buffer.write(RING + number * 100, RING + number * 100 + 100, receiving(data))
    views = [buffer.view(RING + n * 100, RING + n * 100 + 100) for n in range(READ_AHEAD + 1)]
    for number, view in enumerate(views):
        assert view == DATA[number * 100 :][:100]


def test_released_memory_takes_what_comes_later(buffer: Buffer) -> None:
    assert not buffer.reaches(RING)
    buffer.release(CELL_BYTES)
    assert buffer.front == CELL_BYTES
    assert buffer.reaches(RING)


def test_after_a_rewind_the_new_bytes_are_viewed(buffer: Buffer) -> None:
    buffer.write(0, 10, receiving(DATA[:10]))
    buffer.release(2 * CELL_BYTES)  # so that the new ones find no room in the ring
    buffer.rewind(0)
    buffer.release(2 * CELL_BYTES)
    buffer.write(0, 10, receiving(DATA[10:20]))
    assert buffer.view(0, 10) == DATA[10:20]


def test_several_files_are_one_run_of_positions(tmp_path: Path) -> None:
    shards = make_shards(SHARD, 100, SHARD)
    regions = separate_regions(shards, tmp_path)
    buffer = Buffer(regions)
    buffer.open()
    for region, data in zip(regions, shards.values(), strict=True):
        at = region.start
        while at < region.end:
            end = min(region.end, (at // CELL_BYTES + 1) * CELL_BYTES)
            part = data[region.in_shard(at) : region.in_shard(end)]
            at += buffer.write(at, region.end, receiving(part))
    buffer.sync()
    buffer.close()
    for name, data in shards.items():
        assert (tmp_path / name).read_bytes() == data


def test_a_file_that_cannot_be_opened_leaves_none_open(tmp_path: Path) -> None:
    regions = separate_regions(make_shards(10, 10), tmp_path)
    (tmp_path / "shard-2").mkdir()
    buffer = Buffer(regions)
    with pytest.raises(StoreNotWritableError):
        buffer.open()
    buffer.sync()  # nothing is open
    (tmp_path / "shard-2").rmdir()
    buffer.open()
    buffer.close()
