"""Shards that this machine has already: a folder, huggingface_hub's cache, another store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsollama.errors import (
    CorruptShardError,
    HubOfflineError,
    InterruptedByUserError,
    MissingShardError,
    NotEnoughDiskError,
    NotInstalledError,
    UnreadableShardError,
    UsageError,
)
from dsollama.events import Event, ShardVerified
from dsollama.install.destination import Installed
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.state import look
from dsollama.install.to_store import execute
from dsollama.resources import read_template
from dsollama.store.finding import Sweep
from dsollama.store.garbage import find_garbage
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub
from dsollama.testing.tiny_model import tiny_model, write_shards
from dsollama.transfer.journal import claimed_bytes

from conftest import STEM, TERMINUS, Bench, make_repository


@pytest.fixture
def folder(bench: Bench, tmp_path: Path) -> Path:
    """The user's folder with all three shards, as `hf download --local-dir` leaves them."""
    inside = tmp_path / "downloads" / "UD-Q2_K_XL"
    inside.mkdir(parents=True)
    for path in bench.shards:
        shutil.copy(path, inside)
    return tmp_path / "downloads"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Give a tmpfs of some bytes; skipped where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.fixture
def reference(bench: Bench, tmp_path: Path) -> str:
    """The digest that the blob must have: that of a plain download."""
    settings = bench.settings(store=tmp_path / "reference")
    plan = make_plan(InstallRequest("UD-Q2_K_XL", settings), lambda _event: None)
    return execute(plan, lambda _event: None, connections=4).digest


def sent(bench: Bench, work: Callable[[], object]) -> int:
    """Bytes of shards that the Hub sent meanwhile, without those of headers and settings."""
    before = bench.hub.bytes_sent
    work()
    return bench.hub.bytes_sent - before


HEADERS = 3 * 2**20
"""What the plan may read of three shards: the first MiB of shard 1 and a little of the others."""


def test_local_shards_are_copied_and_only_the_missing_one_is_downloaded(
    bench: Bench, folder: Path, reference: str
) -> None:
    (folder / "UD-Q2_K_XL" / bench.shards[1].name).unlink()
    done = bench.install(from_dir=folder)
    size = bench.shards[1].stat().st_size
    assert done.digest == reference
    assert done.moved <= size
    assert done.copied >= sum(each.stat().st_size for each in bench.shards) - size - HEADERS
    assert len(list(folder.rglob("*.gguf"))) == 2


def test_a_local_shard_with_wrong_bytes_is_fetched_from_the_hub(
    bench: Bench, folder: Path, reference: str
) -> None:
    path = folder / "UD-Q2_K_XL" / bench.shards[2].name
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    done = bench.install(from_dir=folder)
    assert done.digest == reference
    assert 0 < done.moved <= bench.shards[2].stat().st_size
    assert any(
        "its bytes are wrong; fetching this shard from the Hub" in str(e) for e in bench.events
    )
    assert path.read_bytes() == data


def test_a_local_file_of_another_size_is_not_used_and_said(bench: Bench, folder: Path) -> None:
    path = folder / "UD-Q2_K_XL" / bench.shards[2].name
    path.write_bytes(path.read_bytes()[:-5])
    plan = bench.plan(from_dir=folder)
    assert len(plan.local) == 2
    assert any("it is not used" in note for note in plan.notes)


def test_offline_the_split_metadata_has_to_do(bench: Bench, folder: Path, reference: str) -> None:
    settings = bench.settings(offline=True, endpoint="http://127.0.0.1:1")
    done = bench.install(from_dir=folder, settings=settings)
    assert (done.digest, done.moved) == (reference, 0)
    (folder / "UD-Q2_K_XL" / bench.shards[1].name).unlink()
    with pytest.raises(MissingShardError):
        bench.plan(from_dir=folder, settings=settings)


def test_the_cache_of_huggingface_hub_is_a_source(
    bench: Bench, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    blobs = cache / f"models--{TERMINUS.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    for path in bench.shards[:2]:
        file = bench.repository.files[f"UD-Q2_K_XL/{path.name}"]
        shutil.copy(path, blobs / str(file.sha256))
    plan = bench.plan()
    assert len(plan.local) == 2
    done = execute(plan, bench.events.append, connections=2)
    assert done.digest == reference
    assert done.moved <= bench.shards[2].stat().st_size
    assert len(list(blobs.iterdir())) == 2


class TestConsume:
    def test_each_shard_is_deleted_when_its_bytes_are_safe(
        self, bench: Bench, folder: Path, reference: str
    ) -> None:
        left: list[int] = []

        def listen(event: Event) -> None:
            if isinstance(event, ShardVerified):
                left.append(len(list(folder.rglob("*.gguf"))))

        plan = bench.plan(from_dir=folder, consume=True)
        done = execute(plan, listen, connections=2)
        assert done.digest == reference
        assert (left, list(folder.rglob("*.gguf"))) == ([3, 2, 1], [])

    def test_a_disk_with_room_for_the_model_and_a_shard_is_enough(
        self, tmp_path: Path, small_disk: Callable[[int], Path]
    ) -> None:
        """Nine shards on a disk of one and a half models; two are needed otherwise."""
        model = tiny_model(read_template("v3.1.jinja"), layers=8, expert_width=2560)
        made = write_shards(tmp_path / "hub", STEM, model, 9)
        total = sum(path.stat().st_size for path in made)
        assert total > 380 * 10**6
        disk = small_disk(total * 3 // 2)
        (disk / "shards").mkdir()
        with LoopbackHub({TERMINUS: make_repository(made)}) as hub:
            bench = Bench(hub, hub.repositories[TERMINUS], disk / "models", made)
            for path in made:
                shutil.copy(path, disk / "shards")
            with pytest.raises(NotEnoughDiskError):
                bench.install(from_dir=disk / "shards")
            done = bench.install(from_dir=disk / "shards", consume=True)
        assert done.moved == 0
        assert not list((disk / "shards").iterdir())
        with Store(disk / "models").blob_path(done.digest).open("rb") as blob:
            assert f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}" == done.digest

    def test_stopped_in_the_middle_it_goes_on_without_the_deleted_shards(
        self, bench: Bench, folder: Path, reference: str
    ) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, ShardVerified) and event.shard == 2:
                raise KeyboardInterrupt

        with pytest.raises(InterruptedByUserError):
            execute(bench.plan(from_dir=folder, consume=True), stop, connections=2)
        assert len(list(folder.rglob("*.gguf"))) == 2
        (staging,) = bench.staged()
        assert (staging / "consumed").exists()
        done = bench.install(from_dir=folder, consume=True)
        assert (done.digest, done.moved) == (reference, 0)
        assert not list(folder.rglob("*.gguf"))
        assert not bench.staged()

    def test_gc_leaves_the_only_copy_alone(self, bench: Bench, folder: Path) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, ShardVerified) and event.shard == 2:
                raise KeyboardInterrupt

        with pytest.raises(InterruptedByUserError):
            execute(bench.plan(from_dir=folder, consume=True), stop, connections=2)
        (staging,) = bench.staged()
        later = time.time() + 365 * 86400
        (found,) = find_garbage(Store(bench.store), claimed_bytes, later).findings
        assert (found.path, found.sweep) == (staging, Sweep.ALL)
        gc = [sys.executable, "-m", "dsollama", "gc", "--delete", "--yes", "--json"]
        done = subprocess.run(
            gc, env=bench.environment(), capture_output=True, text=True, check=False
        )
        assert "only copy" in done.stdout
        assert bench.staged() == [staging]

    def test_shards_that_are_downloaded_need_their_own_room(
        self, bench: Bench, folder: Path
    ) -> None:
        """A folder that has none of them, or one, makes no room for the others."""
        inside = folder / "UD-Q2_K_XL"
        whole = bench.plan().state.needed
        for path in bench.shards[1:]:
            (inside / path.name).unlink()
        assert bench.plan(from_dir=folder, consume=True).state.needed == whole
        big = replace(
            bench.plan(from_dir=folder, consume=True),
            size=10**12,
            shards=tuple(
                replace(each, size=10**12 // 3) for each in bench.plan(from_dir=folder).shards
            ),
        )
        assert look(big, Store(big.store)).needed > 10**12 - 1
        shutil.copy(bench.shards[1], inside)
        shutil.copy(bench.shards[2], inside)
        full = bench.plan(from_dir=folder, consume=True)
        assert look(replace(big, local=full.local), Store(big.store)).needed < 4 * 10**11

    def test_a_damaged_shard_is_not_deleted(self, bench: Bench, folder: Path) -> None:
        path = folder / "UD-Q2_K_XL" / bench.shards[2].name
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
        bench.install(from_dir=folder, consume=True)
        assert list(folder.rglob("*.gguf")) == [path]

    def test_what_could_not_be_had_again_is_not_deleted(self, bench: Bench, folder: Path) -> None:
        settings = bench.settings(offline=True)
        with pytest.raises(UsageError, match="no digest"):
            bench.plan(from_dir=folder, consume=True, settings=settings)
        path = folder / "UD-Q2_K_XL" / bench.shards[0].name
        os.link(path, folder / "twin")
        with pytest.raises(UsageError, match="is a link"):
            bench.plan(from_dir=folder, consume=True)

    def test_it_needs_a_folder(self, bench: Bench) -> None:
        with pytest.raises(UsageError, match="--from-dir"):
            bench.plan(consume=True)


class TestFromStore:
    def test_another_store_is_copied_checked_and_named_here(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        first = bench.install()
        second = bench.settings(store=tmp_path / "second", offline=True)
        request = bench.request(settings=second, from_store=bench.store, name="here")
        done: Installed = execute(make_plan(request, lambda _e: None), lambda _e: None, 2)
        assert (done.digest, done.moved) == (first.digest, 0)
        assert done.names == ("here:UD-Q2_K_XL", "here:UD-Q2_K_XL-thinking")
        here, there = Store(second.store), Store(bench.store)
        assert here.blob_path(done.digest).read_bytes() == there.blob_path(done.digest).read_bytes()
        entry = here.ledger.read(done.digest)
        assert entry is not None
        assert (entry.repository, entry.endpoint) == (TERMINUS, "")
        assert entry.folder == str(bench.store)
        assert done.unchecked == entry.unchecked == (here.blob_path(done.digest).name,)

    def test_a_damaged_blob_is_refused(self, bench: Bench, tmp_path: Path) -> None:
        first = bench.install()
        blob = Store(bench.store).blob_path(first.digest)
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
        second = tmp_path / "second"
        settings = bench.settings(store=second, offline=True)
        request = bench.request(settings=settings, from_store=bench.store)
        with pytest.raises(CorruptShardError):
            execute(make_plan(request, lambda _e: None), lambda _e: None, 2)
        assert not list(second.rglob("sha256-*"))

    def test_a_store_without_it_says_what_it_has(self, bench: Bench, tmp_path: Path) -> None:
        bench.install()
        with pytest.raises(NotInstalledError) as caught:
            bench.plan("Q4_K_M", from_store=bench.store, settings=bench.settings(offline=True))
        assert "UD-Q2_K_XL" in caught.value.hint


def test_a_folder_that_is_not_there_is_one_sentence(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UnreadableShardError, match="nowhere"):
        bench.plan(from_dir=tmp_path / "nowhere")


def test_offline_without_a_folder_is_offline(bench: Bench) -> None:
    with pytest.raises(HubOfflineError):
        bench.plan(settings=bench.settings(offline=True))


def test_the_command_shows_what_it_would_copy(bench: Bench, folder: Path) -> None:
    command = [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", "--dry-run"]
    command += ["--from-dir", str(folder)]
    done = subprocess.run(
        command, env=bench.environment(), capture_output=True, text=True, check=True
    )
    assert "of 3 local file(s)" in done.stdout
    done = subprocess.run(
        [*command, "--json"], env=bench.environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["bytes_to_move"] == 0
