"""The staging file on the filesystems that there are: ext4, tmpfs, and one without fallocate."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dsollama.errors import CorruptShardError, NotEnoughDiskError, StoreNotWritableError
from dsollama.transfer.staged import DIRECT_ALIGNMENT, StagedFile

PAGES = 16
SIZE = PAGES * DIRECT_ALIGNMENT
SHIFTS = (0, 1, 511, 512, 4095)
LENGTHS = (0, 1, 511, 4095, 4096, 4097, 8192, 3 * 4096 + 1)


@pytest.fixture(params=["disk", "tmpfs", "ramfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on each: the disk (direct writes, fallocate), tmpfs (both), ramfs (neither)."""
    if request.param == "disk":
        yield tmp_path
        return
    point = tmp_path / request.param
    point.mkdir()
    mount = ["mount", "-t", request.param, "-o", "size=8m", request.param, str(point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this user may not mount {request.param} here")
    yield point
    subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def memory() -> memoryview:
    """Random bytes on a page's boundary."""
    area = mmap.mmap(-1, SIZE)
    area.write(random.Random(1).randbytes(SIZE))
    return memoryview(area)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("misplaced", [0, 1])
def test_direct_writes_equal_plain_ones_at_every_alignment(
    shift: int, misplaced: int, folder: Path, memory: memoryview
) -> None:
    """Also from memory that is not aligned as the offset is, which the kernel may refuse."""
    plain, direct = StagedFile(folder / "plain"), StagedFile(folder / "direct")
    for file in (plain, direct):
        file.resize(SIZE)
    for number, length in enumerate(LENGTHS):
        offset = number * DIRECT_ALIGNMENT + shift
        view = memory[shift + misplaced :][:length]
        plain.write(view, offset, direct=False)
        direct.write(view, offset, direct=True)
        assert (folder / "plain").read_bytes() == (folder / "direct").read_bytes()
    back = memoryview(bytearray(SIZE))
    direct.read(back, 0)
    assert back == (folder / "plain").read_bytes()
    for file in (plain, direct):
        file.sync()
        file.close()


def test_direct_and_plain_writes_to_one_page_do_not_lose_each_other(
    folder: Path, memory: memoryview
) -> None:
    """Two connections meet within a page where a shard ends in it."""
    chance = random.Random(2)
    file = StagedFile(folder / "file")
    file.resize(SIZE)
    cuts = [0, *sorted(chance.sample(range(1, SIZE), 30)), SIZE]
    parts = [slice(start, end) for start, end in pairwise(cuts)]
    chance.shuffle(parts)
    for number, part in enumerate(parts):
        file.write(memory[part], part.start, direct=number % 3 != 0)
    file.close()
    assert (folder / "file").read_bytes() == memory


def test_resize_takes_the_room_where_it_can_and_writes_nothing_where_not(folder: Path) -> None:
    size = 2**20
    file = StagedFile(folder / "file")
    file.resize(size)
    status = (folder / "file").stat()
    file.close()
    assert status.st_size == size
    if "ramfs" in folder.parts:
        assert status.st_blocks == 0
    else:
        assert status.st_blocks * 512 >= size


def test_room_that_is_not_reserved_is_not_taken(folder: Path) -> None:
    file = StagedFile(folder / "file")
    file.resize(2**20, reserve=False)
    file.close()
    assert ((folder / "file").stat().st_size, (folder / "file").stat().st_blocks) == (2**20, 0)


def test_a_resize_keeps_what_was_written(folder: Path, memory: memoryview) -> None:
    for size in (SIZE, SIZE + 4096, SIZE):
        file = StagedFile(folder / "file")
        file.resize(size)
        file.write(memory[:100], 5000, direct=False)
        file.close()
    file = StagedFile(folder / "file")
    file.resize(SIZE)
    found = memoryview(bytearray(100))
    file.read(found, 5000)
    file.close()
    assert found == memory[:100]


def test_a_disk_without_room_says_so_before_the_first_byte(tmp_path: Path) -> None:
    point = tmp_path / "small"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small tmpfs here")
    try:
        file = StagedFile(point / "file")
        with pytest.raises(NotEnoughDiskError):
            file.resize(2**21)
        file.close()
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    file = StagedFile(tmp_path / "file")
    file.resize(100)
    os.truncate(tmp_path / "file", 50)
    with pytest.raises(CorruptShardError, match="shorter"):
        file.read(memoryview(bytearray(100)), 0)
    file.close()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreNotWritableError):
        StagedFile(tmp_path / "none" / "file")
