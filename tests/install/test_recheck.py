"""Weights of the right size and wrong bytes get no further names."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from dsollama.errors import DsollamaError
from dsollama.events import BytesMoved
from dsollama.install.to_store import execute
from dsollama.store.store import Store

from conftest import Bench


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def exchange(path: Path) -> None:
    """Put another file of the same size and times in its place."""
    other = path.with_suffix(".other")
    shutil.copy2(path, other)
    flip(other, 5_000_000)
    found = path.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def keep_time(path: Path) -> None:
    found = path.stat()
    flip(path, 5_000_000)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": lambda path: flip(path, 5_000_000),
    "its last byte": lambda path: flip(path, path.stat().st_size - 1),
    "zeros": lambda path: (os.truncate(path, 0), os.truncate(path, 11_586_944), None)[2],
    "another file": exchange,
    "a flipped bit and the old mtime": keep_time,
}


def digested(bench: Bench) -> int:
    """Bytes that were digested of the blob that was there already."""
    moved = [each for each in bench.events if isinstance(each, BytesMoved)]
    return max([each.done for each in moved if each.step == "digest"], default=0)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_get_no_further_name_until_they_are_repaired(
    damage: str, bench: Bench
) -> None:
    first = bench.install()
    blob = Store(bench.store).blob_path(first.digest)
    right = blob.read_bytes()
    size = blob.stat().st_size
    DAMAGES[damage](blob)
    if blob.stat().st_size != size:
        os.truncate(blob, size)
    before = bench.files()
    with pytest.raises(DsollamaError, match="they are damaged") as caught:
        bench.install(name="another")
    assert (caught.value.code, caught.value.exit_code) == ("damaged-blob", 5)
    assert bench.files() == before
    command = shlex.split(caught.value.hint.split("`")[1])
    done = run(bench, *command[1:])
    assert done.returncode == 0, done.stderr
    assert blob.read_bytes() == right
    assert bench.install(name="another").moved == 0


def test_the_header_is_compared_in_the_plan(bench: Bench) -> None:
    first = bench.install()
    flip(Store(bench.store).blob_path(first.digest), 200)
    done = run(bench, "install", "UD-Q2_K_XL", "--name", "another", "--dry-run")
    assert done.returncode == 5
    assert "they are damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_name_the_hint_is_to_remove_the_file(bench: Bench) -> None:
    first = bench.install()
    blob = Store(bench.store).blob_path(first.digest)
    shutil.rmtree(bench.store / "manifests")
    flip(blob, 5_000_000)
    with pytest.raises(DsollamaError, match="they are damaged") as caught:
        bench.install()
    assert caught.value.hint == f"Remove {blob} and run the same command again."
    blob.unlink()
    assert bench.install().digest == first.digest


def test_what_nobody_touched_is_not_read_again(bench: Bench) -> None:
    for name in (None, "second", "third"):
        bench.install(name=name)
    assert digested(bench) == 0


@pytest.mark.parametrize("how", ["restored", "linked", "an older dsollama's"])
def test_what_somebody_touched_is_read_once(how: str, bench: Bench) -> None:
    first = bench.install()
    store = Store(bench.store)
    blob = store.blob_path(first.digest)
    if how == "restored":
        shutil.copy2(blob, blob.with_suffix(".copy"))
        blob.with_suffix(".copy").replace(blob)
    elif how == "linked":
        os.link(blob, bench.store / "second-name")
    else:
        entry = store.ledger.read(first.digest)
        assert entry is not None
        store.ledger.write(first.digest, structs.replace(entry, seen=""))
    bench.install(name="second")
    assert digested(bench) == first.size
    bench.events.clear()
    bench.install(name="third")
    assert digested(bench) == 0


def test_it_is_shown_with_a_bar_and_may_be_stopped(bench: Bench) -> None:
    first = bench.install()
    flip(Store(bench.store).blob_path(first.digest), 5_000_000)
    flip(Store(bench.store).blob_path(first.digest), 5_000_000)
    done = run(bench, "install", "UD-Q2_K_XL", "--name", "another", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [each["step"] for each in events if each["event"] == "bytes-moved"]
    assert steps[-1] == "digest"

    os.link(Store(bench.store).blob_path(first.digest), bench.store / "second-name")

    def stop(event: object) -> None:
        if isinstance(event, BytesMoved):
            raise KeyboardInterrupt

    before = bench.files()
    with pytest.raises(KeyboardInterrupt):
        execute(bench.plan(name="third"), stop, connections=1)
    assert bench.files() == before


def run(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
