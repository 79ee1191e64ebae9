"""Padding that is not zero in a shard is zero in the merged file, as llama-gguf-split has it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.gguf.header import Header, read_header
from dsollama.gguf.split_program import merge
from dsollama.install import to_store
from dsollama.resources import read_template
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub
from dsollama.testing.tiny_model import TinyModel, TinyTensor, tiny_model, write_shards
from dsollama.transfer.padding import RECORD, Padding, put_back_published, write_zeros

from conftest import STEM, TERMINUS, Bench, make_repository

F32 = 0
COUNTS = (3, 1_000_001, 5, 700_003, 7, 1)
"""Numbers in the tensors: none fills its last 32 bytes."""


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        handle = file.fileno()
        return read_header(
            lambda start, end: os.pread(handle, end - start, start), path.stat().st_size, 2**20
        )


@pytest.fixture
def padded(tmp_path: Path) -> Iterator[Bench]:
    """A Hub whose shards have bytes of their own between tensors."""

    def tensor(number: int, count: int) -> TinyTensor:
        return TinyTensor(
            f"t{number}", (count,), F32, lambda: iter([bytes([number + 1]) * 4 * count])
        )

    model = TinyModel(
        tiny_model(read_template("v3.1.jinja")).key_values,
        tuple(tensor(*each) for each in enumerate(COUNTS)),
    )
    paths = write_shards(tmp_path / "hub", STEM, model, 3)
    for path in paths:
        header = header_of(path)
        with path.open("r+b") as file:
            for each in header.tensors:
                at = header.data_start + each.offset + each.size
                file.seek(at)
                file.write(b"x" * (-each.size % 32))
    repository = make_repository(paths)
    with LoopbackHub({TERMINUS: repository}) as hub:
        yield Bench(hub, repository, tmp_path / "models", paths)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def test_it_is_merged_as_llama_gguf_split_merges_it(
    padded: Bench, gguf_split: Path, tmp_path: Path
) -> None:
    merge(gguf_split, padded.shards[0], tmp_path / "merged.gguf")
    done = padded.install()
    assert done.digest == digest(tmp_path / "merged.gguf")
    assert digest(Store(padded.store).blob_path(done.digest)) == done.digest
    assert padded.staged() == []


def test_consumed_and_stopped_behind_the_zeros_it_goes_on_without_the_shards(
    padded: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that are in staging are the only ones, and they no longer have their digests."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for path in padded.shards:
        shutil.copy(path, folder)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    adopt = to_store.adopt
    monkeypatch.setattr(to_store, "adopt", stopped)
    with pytest.raises(KeyboardInterrupt):
        padded.install(from_dir=folder, consume=True)
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(to_store, "adopt", adopt)
    (staging,) = padded.staged()
    assert (staging / RECORD).exists()
    done = padded.install(from_dir=folder, consume=True)
    assert done.moved == 0
    assert digest(Store(padded.store).blob_path(done.digest)) == done.digest
    assert padded.staged() == []


def test_a_repair_knows_where_the_zeros_are(padded: Bench) -> None:
    done = padded.install()
    blob = Store(padded.store).blob_path(done.digest)
    header = header_of(blob)
    first = header.tensors[0]
    at = header.data_start + first.offset + first.size
    assert blob.read_bytes()[at : at + 20] == bytes(20)
    with blob.open("r+b") as file:
        file.seek(at - 4)
        file.write(b"damaged!")
    report = check(plan_check(padded.settings(), [], quick=False, repair=True), print)
    assert report.right
    assert digest(blob) == done.digest


@pytest.mark.parametrize("step", [1, 3, 16, 40])
def test_a_gap_may_lie_across_two_views(step: int) -> None:
    gaps = [(5, 3), (10, 31), (60, 2)]
    data = bytes([255]) * 64
    wanted = bytearray(data)
    for offset, size in gaps:
        wanted[offset : offset + size] = bytes(size)
    padding = Padding(gaps)
    parts = (padding.zeroed(at, memoryview(data[at : at + step])) for at in range(0, 64, step))
    assert b"".join(parts) == wanted
    kept = memoryview(bytes(64))
    assert padding.zeroed(0, kept) is kept


@pytest.mark.parametrize("record", [b"{", b'{"99999999999": "AAAA"}', b'{"-1": "AAAA"}'])
def test_a_damaged_record_writes_nothing(record: bytes, tmp_path: Path) -> None:
    merged = tmp_path / "merged.gguf"
    merged.write_bytes(b"xxxx")
    assert write_zeros(merged, tmp_path, [(1, 2)]) == {1: b"xx"}
    assert merged.read_bytes() == b"x\0\0x"
    put_back_published(merged, tmp_path)
    assert merged.read_bytes() == b"xxxx"
    (tmp_path / RECORD).write_bytes(record)
    put_back_published(merged, tmp_path)
    assert merged.read_bytes() == b"xxxx"
    assert not (tmp_path / RECORD).exists()
