"""Weights that are wrong, or that nothing proves: a merger, a folder, a mirror, a store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from faults.scene import Scene, case

from conftest import ROOT

MERGER = "A program that merges"
UNPROVED = "Weights that nothing proves"
THERE = "Weights that are there already"
REAL = ROOT / "llama.cpp" / "llama-gguf-split"
WROTE = "ended well, but wrote"
IN_SHARD_2 = 20_000_000
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def _merger(scene: Scene, script: str) -> Path:
    """Merge by a program that runs `script`, where REAL is the real one, which the rerun has."""
    if not REAL.is_file():
        pytest.skip("llama.cpp/llama-gguf-split is not built")
    program = scene.tmp / "llama-gguf-split"
    program.write_text(f"#!/bin/sh\n{script.replace('REAL', f'{REAL} >/dev/null')}\n")
    program.chmod(0o755)
    before = os.environ.get("LLAMA_GGUF_SPLIT")
    os.environ["LLAMA_GGUF_SPLIT"] = str(program)  # for both runs
    scene.stack.callback(_set, before)
    scene.arguments = (*scene.arguments, "--merger", "llama-gguf-split")
    return program


def _set(value: str | None) -> None:
    os.environ.pop("LLAMA_GGUF_SPLIT")
    if value is not None:
        os.environ["LLAMA_GGUF_SPLIT"] = value


def _lies(scene: Scene, script: str) -> Iterator[None]:
    program = _merger(scene, script)
    yield
    program.unlink()
    program.symlink_to(REAL)


@case(MERGER, "it copies shard 1 and ends well", exits=6, says=f"{WROTE} .* bytes instead of")
def merger_copies_one_shard(scene: Scene) -> Iterator[None]:
    yield from _lies(scene, 'cp "$2" "$3"')


@case(MERGER, "it writes nothing and ends well", exits=6, says="ended well, and wrote nothing")
def merger_writes_nothing(scene: Scene) -> Iterator[None]:
    yield from _lies(scene, "exit 0")


@case(MERGER, "it writes zeros of the right size", exits=6, says=f"{WROTE} another header")
def merger_writes_zeros(scene: Scene) -> Iterator[None]:
    script = 'REAL "$@" && size=$(stat -c %s "$3") && truncate -s 0 "$3" && truncate -s $size "$3"'
    yield from _lies(scene, script)


@case(MERGER, "it writes a few wrong bytes", exits=6, says=f"{WROTE} other bytes than .* shard 2")
def merger_writes_wrong_bytes(scene: Scene) -> Iterator[None]:
    script = f'printf wrong | dd of="$3" bs=1 seek={IN_SHARD_2} conv=notrunc 2>/dev/null'
    yield from _lies(scene, f'REAL "$@" && {script}')


@case(MERGER, "it leaves out the end of the last shard", exits=6,
      says=f"{WROTE} other bytes than .* shard 3")  # fmt: skip
def merger_leaves_out_the_end(scene: Scene) -> Iterator[None]:
    script = 'REAL "$@" && size=$(stat -c %s "$3") && truncate -s -9000000 "$3"'
    yield from _lies(scene, f'{script} && truncate -s $size "$3"')


@case(MERGER, "it writes a byte too much", exits=6, says=f"{WROTE} .* bytes instead of")
def merger_writes_too_much(scene: Scene) -> Iterator[None]:
    yield from _lies(scene, 'REAL "$@" && printf x >> "$3"')


@case(MERGER, "it leaves a link to a shard", exits=6, says=f"{WROTE} a link")
def merger_leaves_a_link(scene: Scene) -> Iterator[None]:
    yield from _lies(scene, 'ln -s "$2" "$3"')


def _folder(scene: Scene, *, other: bool = False) -> Path:
    """A folder with the shards, or with files that only their tensors tell from these."""
    folder = scene.tmp / ("others" if other else "downloads")
    folder.mkdir()
    for path in scene.bench.shards:
        data = bytearray(path.read_bytes())
        if other:
            data[len(data) // 2 :: 1000] = bytes(len(data[len(data) // 2 :: 1000]))
        (folder / path.name).write_bytes(data)
    return folder


@case(UNPROVED, "HF_HUB_OFFLINE and `--from-dir`", says="unchecked: 3 file")
def folder_offline(scene: Scene) -> Iterator[None]:
    scene.arguments = (*scene.arguments, "--from-dir", str(_folder(scene)))
    scene.environment = OFFLINE
    yield


@case(UNPROVED, "HF_HUB_OFFLINE and `--from-dir`, and shards of other files are staged",
      says="unchecked: 3 file")  # fmt: skip
def folder_offline_with_others_staged(scene: Scene) -> Iterator[None]:
    program = _merger(scene, "exit 1")
    folder = _folder(scene, other=True)
    scene.arguments = (*scene.arguments, "--from-dir", str(folder))
    scene.environment = OFFLINE
    done = scene.play()
    assert "failed with code 1" in done.err
    assert any((scene.own / "staging").glob("*/model-00003*"))
    for path in scene.bench.shards:
        shutil.copy(path, folder)
    program.unlink()
    program.symlink_to(REAL)
    scene.before_own = scene.own_files()
    yield


@case(
    UNPROVED, "a mirror whose listing has no digests", says="publishes no digest for 3 of 3 files"
)
def mirror_without_digests(scene: Scene) -> Iterator[None]:
    _listed(scene, lfs=False)
    yield
    _listed(scene, lfs=True)


@case(UNPROVED, "a mirror whose listing has no digests, and `--from-dir` with other files",
      says="is not used: the Hub publishes")  # fmt: skip
def mirror_without_digests_and_a_folder(scene: Scene) -> Iterator[None]:
    scene.arguments = (*scene.arguments, "--from-dir", str(_folder(scene, other=True)))
    _listed(scene, lfs=False)
    yield
    _listed(scene, lfs=True)


def _listed(scene: Scene, *, lfs: bool) -> None:
    for file in scene.bench.repository.files.values():
        file.lfs = lfs


def _other_store(scene: Scene) -> Path:
    """Another store with the model, to copy from; return its blob."""
    store = scene.tmp / "other"
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes", "--store", str(store))
    assert done.returncode == 0, done.stderr
    scene.arguments = (*scene.arguments, "--from-store", str(store))
    return _largest(store)


def _largest(store: Path) -> Path:
    return max((store / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def _write(path: Path, data: bytes, at: int) -> bytes:
    """Write into a file; return what was there."""
    with path.open("r+b") as file:
        file.seek(at)
        before = file.read(len(data))
        file.seek(at)
        file.write(data)
    return before


@case(
    UNPROVED, "`--from-store`, and its weights have other tensors", says="its bytes are wrong for"
)
def other_store_with_other_weights(scene: Scene) -> Iterator[None]:
    _write(_other_store(scene), b"forged" * 100, IN_SHARD_2)
    yield


@case(UNPROVED, "`--from-store`, and its weights have another header", exits=2,
      says="no weights that begin as")  # fmt: skip
def other_store_with_another_header(scene: Scene) -> Iterator[None]:
    blob = _other_store(scene)
    before = _write(blob, b"forged" * 100, 1000)
    yield
    _write(blob, before, 1000)


@case(UNPROVED, "`--from-store`, and its ledger names another Hub and other shards")
def other_store_with_a_forged_ledger(scene: Scene) -> Iterator[None]:
    blob = _other_store(scene)
    (entry,) = (blob.parents[1] / ".dsollama" / "ledger").iterdir()
    text = entry.read_text().replace(scene.bench.hub.endpoint, "http://127.0.0.1:1")
    for file in scene.bench.repository.files.values():
        text = text.replace(file.sha256, "0" * 64)
    entry.write_text(text)
    yield


@case(UNPROVED, "HF_HUB_OFFLINE and `--from-store`", says="unchecked: 1 file")
def other_store_offline(scene: Scene) -> Iterator[None]:
    _other_store(scene)
    scene.environment = OFFLINE
    yield


DAMAGED = "they are damaged; no name was given to them"


def _installed(scene: Scene) -> Path:
    """The store has the model already; return its blob."""
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    return _largest(scene.store)


def _damaged(scene: Scene, at: int, gone: Sequence[str] = ()) -> Iterator[None]:
    blob = _installed(scene)
    for name in gone:
        shutil.rmtree(scene.store / name)
    before = _write(blob, b"damage", at)
    yield
    _write(blob, before, at)


@case(THERE, "a few bytes of the weights are damaged", exits=5, says=DAMAGED)
def weights_damaged(scene: Scene) -> Iterator[None]:
    yield from _damaged(scene, IN_SHARD_2)


@case(THERE, "their header is damaged", exits=5, says=DAMAGED)
def weights_with_damaged_header(scene: Scene) -> Iterator[None]:
    yield from _damaged(scene, 1000)


@case(THERE, "they are damaged, and no name has them", exits=5, says=DAMAGED)
def weights_damaged_and_nameless(scene: Scene) -> Iterator[None]:
    model = "manifests/registry.ollama.ai/library/deepseek-v3.1-terminus"
    yield from _damaged(scene, IN_SHARD_2, [model])


@case(THERE, "another file of their size and times is in their place", exits=5, says=DAMAGED)
def weights_exchanged(scene: Scene) -> Iterator[None]:
    blob = _installed(scene)
    kept = scene.tmp / "kept"
    shutil.copy2(blob, kept)
    other = shutil.copy2(blob, scene.tmp / "other-weights")
    _write(other, b"damage", IN_SHARD_2)
    os.utime(other, ns=(kept.stat().st_atime_ns, kept.stat().st_mtime_ns))
    shutil.move(other, blob)
    yield
    shutil.move(kept, blob)


@case(THERE, "they were restored from a backup", says="digest: the weights that are in the store")
def weights_restored(scene: Scene) -> Iterator[None]:
    blob = _installed(scene)
    shutil.copy2(blob, scene.tmp / "backup")
    blob.unlink()
    shutil.move(scene.tmp / "backup", blob)
    yield
