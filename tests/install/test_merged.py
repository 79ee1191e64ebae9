"""A program that merges is not believed: what it wrote has to be what the shards make."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.errors import DsollamaError
from dsollama.events import BytesMoved, Event
from dsollama.gguf import encode as gg
from dsollama.gguf.header import parse_header
from dsollama.gguf.merge import merge_layout
from dsollama.gguf.shards import shard_file_name
from dsollama.gguf.split_program import merge
from dsollama.install.merged import require_merged, shards_gaps
from dsollama.install.request import Merger
from dsollama.store.store import Store
from dsollama.transfer.journal import claimed_bytes

from conftest import Bench

PROGRAM = """#!{python}
import os, shutil, sys
from pathlib import Path
from dsollama.gguf.header import read_header
from dsollama.gguf.merge import merge_layout

first, out = Path(sys.argv[2]), Path(sys.argv[3])
shards = sorted(first.parent.glob("model-*.gguf"))
data = [path.read_bytes() for path in shards]
headers = [read_header(lambda a, b: each[a:b], len(each), 2**20) for each in data]
layout = merge_layout(headers, [len(each) for each in data])
merged = bytearray(layout.size)
merged[: len(layout.header)] = layout.header
for span in layout.spans:
    own = data[span.file][span.source :][: span.size]
    merged[span.target : span.target + span.size] = own
for offset, size in layout.gaps:
    merged[offset : offset + size] = bytes(size)
two = layout.spans[1]
{lie}
out.write_bytes(merged)
{then}
"""
"""Merges as llama-gguf-split does, so that what it does wrong is only the lie."""

LIES = {
    "one shard": ("merged = data[0]", "", "bytes instead of"),
    "nothing": ("merged = b''", "", "0 bytes instead of"),
    "zeros": ("merged = bytes(len(merged))", "", "another header"),
    "another header": ("merged[100] ^= 1", "", "another header"),
    "a flipped bit": ("merged[two.target + 5000] ^= 1", "", "those of shard 2 of 3"),
    "a flipped last byte": ("merged[-40] ^= 1", "", "those of shard 3 of 3"),
    "shard 3 missing": ("merged[layout.spans[2].target :] = bytes(layout.spans[2].size)", "",
                        "those of shard 3 of 3"),
    "a hole in shard 2": (
        "merged[two.target : two.target + 4096] = bytes(4096)", "", "those of shard 2 of 3"),
    "more than that": ("merged += bytes(32)", "", "bytes instead of"),
    "wrong bytes, in the shard too": (
        "merged[two.target + 5000] ^= 1",
        "shards[1].write_bytes(data[1][: two.source] + merged[two.target :][: two.size])",
        "those of shard 2 of 3"),
    "a link to a shard": ("", "out.unlink(); out.symlink_to(shards[0])", "a link"),
    "a pipe": ("", "out.unlink(); os.mkfifo(out)", "no file"),
    "nothing at all": ("", "out.unlink()", "wrote nothing"),
}  # fmt: skip
"""By what it writes: the lie, what it does afterwards, and the sentence."""


def program(tmp_path: Path, lie: str = "", then: str = "") -> str:
    path = tmp_path / "llama-gguf-split"
    path.write_text(PROGRAM.format(python=sys.executable, lie=lie, then=then))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("lie", LIES)
def test_a_program_that_lies_is_told_and_nothing_is_registered(
    lie: str, bench: Bench, tmp_path: Path
) -> None:
    does, then, says = LIES[lie]
    settings = bench.settings(gguf_split=program(tmp_path, does, then))
    with pytest.raises(DsollamaError, match=says) as caught:
        bench.install(settings=settings, merger=Merger.LLAMA_GGUF_SPLIT)
    assert caught.value.exit_code == 6
    assert caught.value.code == ("program-failed" if "all" in lie else "wrong-merge")
    assert bench.files() == {}
    assert not list((bench.store / ".dsollama").glob("ledger/*"))
    (staging,) = bench.staged()
    assert claimed_bytes(staging) == sum(path.stat().st_size for path in bench.shards)
    assert not os.path.lexists(staging / "merged.gguf")

    settings = bench.settings(gguf_split=program(tmp_path))
    done = bench.install(settings=settings, merger=Merger.LLAMA_GGUF_SPLIT)
    again = bench.shards[1].stat().st_size if "in the shard" in lie else 0
    assert done.moved == again, "the shards were not kept"
    native = bench.install(settings=bench.settings(store=tmp_path / "native"))
    assert done.digest == native.digest


def test_what_it_wrote_is_digested_with_progress_and_can_be_repaired(
    bench: Bench, tmp_path: Path
) -> None:
    seen: list[Event] = bench.events
    settings = bench.settings(gguf_split=program(tmp_path))
    done = bench.install(settings=settings, merger=Merger.LLAMA_GGUF_SPLIT)
    digested = [each for each in seen if isinstance(each, BytesMoved) and each.step == "digest"]
    assert digested[-1].done == digested[-1].total == done.size
    store = Store(bench.store)
    blob = store.blob_path(done.digest)
    data = bytearray(blob.read_bytes())
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == done.digest
    data[5_000_000] ^= 1
    blob.write_bytes(data)
    report = check(plan_check(bench.settings(), [], repair=True), seen.append)
    assert report.right
    assert f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}" == done.digest


def padded_shard(number: int, padding: bytes) -> bytes:
    """One of two shards, with two tensors of 12 bytes, each with its padding."""
    keys = [
        gg.encode_key_value("split.no", gg.UINT16, number),
        gg.encode_key_value("split.count", gg.UINT16, 2),
        gg.encode_key_value("split.tensors.count", gg.INT32, 4),
    ]
    names = [f"t{number}.{index}".encode() for index in range(2)]
    infos = [gg.encode_tensor_info(name, (3,), 0, 32 * at) for at, name in enumerate(names)]
    return gg.encode_header(keys, infos) + b"".join(name * 3 + padding for name in names)


@pytest.mark.engines
@pytest.mark.parametrize("padding", [bytes(20), b"x" * 20])
def test_padding_that_a_shard_fills_is_rewritten_with_zeros(
    padding: bytes, gguf_split: Path, tmp_path: Path
) -> None:
    """The one place where llama-gguf-split writes other bytes than the shard has."""
    data = [padded_shard(number, padding) for number in range(2)]
    files = {index: tmp_path / shard_file_name("model", index + 1, 2) for index in range(2)}
    for index, path in files.items():
        path.write_bytes(data[index])
    headers = [parse_header(each, len(each)) for each in data]
    layout = merge_layout(headers, [len(each) for each in data])
    shards = [hashlib.sha256(each).hexdigest() for each in data]
    merged = tmp_path / "merged.gguf"
    merge(gguf_split, files[0], merged)
    gaps = shards_gaps(layout, files)
    assert len(gaps) == (4 if padding.strip(b"\0") else 0)
    found = require_merged(merged, layout, headers, shards, gaps, print)
    assert found.whole == hashlib.sha256(merged.read_bytes()).hexdigest()
    assert list(found.shards) == shards
    wrong = bytearray(merged.read_bytes())
    wrong[layout.gaps[1][0]] = 1
    merged.write_bytes(wrong)
    with pytest.raises(DsollamaError, match="padding at byte"):
        require_merged(merged, layout, headers, shards, gaps, print)
