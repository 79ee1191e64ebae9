"""Weights that no published digest proves are never mixed, and never called checked."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.errors import DsollamaError, InterruptedByUserError
from dsollama.events import Event, ShardVerified
from dsollama.install.destination import Installed
from dsollama.install.request import Merger
from dsollama.install.to_store import execute
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub

from conftest import TERMINUS, Bench, make_repository

QUANT = "UD-Q2_K_XL"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def other_bytes(paths: list[Path], folder: Path) -> list[Path]:
    """Write files of the same names, sizes and headers, whose tensors are others."""
    folder.mkdir(parents=True)
    made = []
    for path in paths:
        data = bytearray(path.read_bytes())
        for at in range(len(data) // 2, len(data), 1000):
            data[at] ^= 0x55
        made.append(folder / path.name)
        made[-1].write_bytes(data)
    return made


@pytest.fixture
def others(bench: Bench, tmp_path: Path) -> list[Path]:
    """Another set of shards, which only its tensors tell from the Hub's."""
    return other_bytes(bench.shards, tmp_path / "others")


@pytest.fixture
def folder(bench: Bench, tmp_path: Path) -> Path:
    inside = tmp_path / "downloads"
    inside.mkdir()
    for path in bench.shards:
        shutil.copy(path, inside)
    return inside


def offline(bench: Bench, **changes: object) -> dict[str, object]:
    return {"settings": bench.settings(offline=True, **changes)}


def stop_after(shard: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == shard:
            raise KeyboardInterrupt

    return listen


def stopped(bench: Bench, shard: int = 2, **changes: object) -> None:
    with pytest.raises(InterruptedByUserError):
        execute(bench.plan(**changes), stop_after(shard), connections=1)


def merged_digest(paths: list[Path], bench: Bench) -> str:
    """Digest of what a Hub with these shards gives."""
    store = bench.store.parent / f"reference-{len(list(bench.store.parent.iterdir()))}"
    with LoopbackHub({TERMINUS: make_repository(paths)}) as hub:
        return Bench(hub, hub.repositories[TERMINUS], store, paths).install().digest


def without_digests(paths: list[Path]) -> HubRepository:
    """A repository whose listing says no digest, as a mirror's, or of files that are not LFS."""
    repository = HubRepository()
    for path in paths:
        repository.add(f"{QUANT}/{path.name}", path, lfs=False)
    return repository


class TestFolder:
    @pytest.mark.parametrize("how", ["another folder", "copied over", "renamed over"])
    def test_bytes_of_two_sets_are_not_mixed(
        self, how: str, bench: Bench, folder: Path, others: list[Path]
    ) -> None:
        stopped(bench, from_dir=folder, **offline(bench))
        second = folder
        for path in others:
            if how == "copied over":
                shutil.copy(path, folder)
            elif how == "renamed over":
                shutil.copy2(path, folder / "new")
                (folder / "new").replace(folder / path.name)
            else:
                second = path.parent
        plan = bench.plan(from_dir=second, **offline(bench))
        assert plan.state.resumed == 0
        done = execute(plan, bench.events.append, connections=2)
        assert done.digest == merged_digest(others, bench)

    def test_the_same_files_go_on(self, bench: Bench, folder: Path) -> None:
        stopped(bench, from_dir=folder, **offline(bench))
        plan = bench.plan(from_dir=folder, **offline(bench))
        assert plan.state.resumed > bench.shards[0].stat().st_size
        done = execute(plan, bench.events.append, connections=2)
        assert done.resumed == plan.state.resumed
        assert done.digest == merged_digest(bench.shards, bench)

    def test_the_other_mergers_shards_are_not_mixed(
        self, bench: Bench, folder: Path, others: list[Path], tmp_path: Path
    ) -> None:
        """The program fails the first time; the staged shards are then of other files."""
        program = tmp_path / "llama-gguf-split"
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        how = {"merger": Merger.LLAMA_GGUF_SPLIT, **offline(bench, gguf_split=str(program))}
        with pytest.raises(DsollamaError, match="failed with code 1"):
            bench.install(from_dir=folder, **how)
        assert bench.plan(from_dir=folder, **how).state.resumed > 0
        assert bench.plan(from_dir=others[0].parent, **how).state.resumed == 0

    @pytest.mark.parametrize("shard", [1, 3])
    def test_a_file_that_is_written_to_meanwhile_is_told(
        self, shard: int, bench: Bench, folder: Path
    ) -> None:
        def write(event: Event) -> None:
            if isinstance(event, ShardVerified) and event.shard == 2:
                with (folder / bench.shards[shard - 1].name).open("r+b") as file:
                    file.seek(-100, 2)
                    file.write(b"x")

        with pytest.raises(DsollamaError, match="was changed") as caught:
            execute(bench.plan(from_dir=folder, **offline(bench)), write, connections=1)
        assert (caught.value.code, caught.value.exit_code) == ("unreadable-shard", 4)
        assert bench.files() == {}
        done = bench.install(from_dir=folder, **offline(bench))
        paths = [folder / path.name for path in bench.shards]
        assert done.digest == merged_digest(paths, bench)

    def test_it_is_said_everywhere_that_nothing_was_compared(
        self, bench: Bench, folder: Path
    ) -> None:
        names = [path.name for path in bench.shards]
        plan = bench.plan(from_dir=folder, **offline(bench))
        assert plan.to_json()["unchecked"] == names
        assert any("taken as they are" in note for note in plan.notes)
        done = execute(plan, bench.events.append, connections=2)
        assert done.to_json()["unchecked"] == names
        verified = [each for each in bench.events if isinstance(each, ShardVerified)]
        assert [each.published for each in verified] == [False] * 3
        entry = Store(bench.store).ledger.read(done.digest)
        assert entry is not None
        assert (entry.endpoint, entry.folder) == ("", str(folder))
        assert [each.sha256 for each in entry.sources] == [None] * 3
        said = command(bench, "verify")
        assert said.returncode == 0
        assert "match what was installed" in said.stdout
        assert "3 of 3 files had no published digest to compare with" in said.stdout
        assert "match" not in command(bench, "verify", "--quick").stdout
        assert str(folder) in command(bench, "list").stdout

    def test_the_hubs_own_install_does_not_take_it_for_its_own(
        self, bench: Bench, others: list[Path]
    ) -> None:
        folder = others[0].parent
        bad = bench.install(from_dir=folder, **offline(bench))
        plan = bench.plan(name="honest")
        assert plan.state.installed is None
        done = execute(plan, bench.events.append, connections=2)
        assert done.digest == merged_digest(bench.shards, bench) != bad.digest

    def test_it_is_not_resumed_from_a_hub(self, bench: Bench, folder: Path) -> None:
        stopped(bench, from_dir=folder, **offline(bench))
        with pytest.raises(DsollamaError, match="no Hub has listed"):
            bench.plan(resume=True)
        assert bench.plan(resume=True, from_dir=folder).state.resumed > 0
        plan = bench.plan()
        assert (plan.commit, plan.state.resumed) == (bench.repository.commit, 0)


class TestMirror:
    @pytest.fixture
    def mirror(self, bench: Bench) -> Bench:
        bench.hub.repositories[TERMINUS] = without_digests(bench.shards)
        return bench

    def test_it_is_said_everywhere(self, mirror: Bench) -> None:
        names = [f"{QUANT}/{path.name}" for path in mirror.shards]
        plan = mirror.plan()
        assert plan.to_json()["unchecked"] == names
        assert any("publishes no digest for 3 of 3 files" in note for note in plan.notes)
        done = command(mirror, "install", QUANT, "--yes")
        assert "complete, with no published digest to compare" in done.stderr
        assert "verified" not in done.stderr
        assert "Note: unchecked: 3 file(s)" in done.stderr
        assert "unchecked" in command(mirror, "install", QUANT, "--dry-run").stdout
        (model, _) = json.loads(command(mirror, "list", "--json").stdout)
        assert model["unchecked"] == names
        report = check(plan_check(mirror.settings(), []), mirror.events.append)
        assert report.right
        assert all("no published digest" in each.unchecked for each in report.models)

    def test_one_file_without_a_digest_is_told_among_others(self, bench: Bench) -> None:
        name = f"{QUANT}/{bench.shards[1].name}"
        bench.repository.add(name, bench.shards[1], lfs=False)
        assert bench.plan().unchecked == (name,)
        assert bench.install().unchecked == (name,)

    def test_with_digests_nothing_is_said(self, bench: Bench) -> None:
        done = command(bench, "install", QUANT, "--yes")
        assert "unchecked" not in done.stderr
        assert "shard 1/3 verified" in done.stderr
        assert command(bench, "verify").stdout.count("\n") == 2

    def test_two_mirrors_are_not_mixed(
        self, mirror: Bench, others: list[Path], tmp_path: Path
    ) -> None:
        stopped(mirror)
        with LoopbackHub({TERMINUS: without_digests(others)}) as second:
            settings = mirror.settings(endpoint=second.endpoint)
            plan = mirror.plan(settings=settings, revision="main")
            assert plan.state.resumed == 0
            done = execute(plan, mirror.events.append, connections=2)
        assert done.digest == merged_digest(others, mirror)

    def test_local_files_that_it_cannot_prove_are_not_used(
        self, mirror: Bench, others: list[Path]
    ) -> None:
        plan = mirror.plan(from_dir=others[0].parent)
        assert not plan.local
        assert sum("is not used" in note for note in plan.notes) == 3
        done = execute(plan, mirror.events.append, connections=2)
        assert done.digest == merged_digest(mirror.shards, mirror)


class TestLostLedger:
    def test_weights_that_no_ledger_knows_are_proved(self, bench: Bench) -> None:
        first = bench.install()
        shutil.rmtree(bench.store / ".dsollama")
        done = bench.install(name="second")
        assert (done.digest, done.moved) == (first.digest, 0)
        assert bench.plan().state.installed == first.digest

    def test_a_single_file_too(self, single: Path, bench: Bench) -> None:
        bench.repository.add(single.name, single)
        first = bench.install("TQ1_0")
        shutil.rmtree(bench.store / ".dsollama")
        done = bench.install("TQ1_0", name="second")
        assert (done.digest, done.moved) == (first.digest, 0)

    def test_damaged_ones_are_downloaded_anew(self, bench: Bench) -> None:
        first = bench.install()
        shutil.rmtree(bench.store / ".dsollama")
        blob = Store(bench.store).blob_path(first.digest)
        right = blob.read_bytes()
        blob.write_bytes(right[:-100] + b"x" + right[-99:])
        done = bench.install(name="second")
        assert done.moved > 0
        assert any("is something else" in str(each) for each in bench.events)
        assert blob.read_bytes() == right


class TestOtherStore:
    @pytest.fixture
    def honest(self, bench: Bench) -> str:
        return merged_digest(bench.shards, bench)

    @pytest.fixture
    def forged(self, bench: Bench, others: list[Path], tmp_path: Path) -> Iterator[Path]:
        """A store with other weights, whose ledger says that they are the Hub's."""
        store = tmp_path / "forged"
        with LoopbackHub({TERMINUS: make_repository(others)}) as evil:
            settings = bench.settings(store=store, endpoint=evil.endpoint)
            done = bench.install(settings=settings)
            ledger = Store(store).ledger
            entry = ledger.read(done.digest)
            assert entry is not None
            sources = [
                structs.replace(each, sha256=bench.repository.files[each.path].sha256)
                for each in entry.sources
            ]
            ledger.write(done.digest, structs.replace(entry, sources=tuple(sources)))
            evil.requests.clear()
            yield store
            assert not evil.requests, "the forger's address was asked"

    def test_the_hub_tells_a_forged_one(self, bench: Bench, forged: Path, honest: str) -> None:
        done = bench.install(from_store=forged)
        assert done.digest == honest
        assert any("its bytes are wrong" in str(each) for each in bench.events)
        assert done.unchecked == ()

    def test_a_right_one_is_proved_by_the_hub_and_copied(
        self, bench: Bench, honest: str, tmp_path: Path
    ) -> None:
        bench.install()
        shutil.rmtree(bench.store / ".dsollama")  # nothing of its ledger is needed
        settings = bench.settings(store=tmp_path / "second")
        done = bench.install(from_store=bench.store, settings=settings)
        assert (done.digest, done.moved, done.unchecked) == (honest, 0, ())
        entry = Store(settings.store).ledger.read(done.digest)
        assert entry is not None
        assert (entry.endpoint, entry.folder) == (bench.hub.endpoint, "")
        assert bench.plan(settings=settings).state.installed == honest

    def test_a_single_file_is_proved_too(self, single: Path, bench: Bench, tmp_path: Path) -> None:
        bench.repository.add(single.name, single)
        first = bench.install("TQ1_0")
        settings = bench.settings(store=tmp_path / "second")
        done = bench.install("TQ1_0", from_store=bench.store, settings=settings)
        assert (done.digest, done.moved) == (first.digest, 0)

    def test_without_the_hub_it_is_another_stores_and_unchecked(
        self, bench: Bench, forged: Path, honest: str
    ) -> None:
        done: Installed = bench.install(from_store=forged, **offline(bench))
        assert done.digest != honest
        assert len(done.unchecked) == 1
        entry = Store(bench.store).ledger.read(done.digest)
        assert entry is not None
        assert (entry.endpoint, entry.commit, entry.folder) == ("", "0" * 40, str(forged))
        assert [each.sha256 for each in entry.sources] == [None]
        assert "no published digest" in command(bench, "verify").stdout
        # the honest Hub's install is another one
        plan = bench.plan(name="honest")
        assert plan.state.installed is None
        assert execute(plan, bench.events.append, connections=2).digest == honest

    def test_copied_without_the_hub_it_is_proved_by_the_hub_later(
        self, bench: Bench, honest: str, tmp_path: Path
    ) -> None:
        bench.install()
        settings = bench.settings(store=tmp_path / "second")
        source = {"from_store": bench.store, "settings": bench.settings(
            store=tmp_path / "second", offline=True)}  # fmt: skip
        assert bench.install(**source).unchecked
        again = bench.install(**source, name="again")
        assert (again.copied, again.moved) == (0, 0), "it was copied twice"
        assert "read first" in " ".join(bench.plan(settings=settings).notes)
        done = bench.install(settings=settings)
        assert (done.digest, done.moved, done.unchecked) == (honest, 0, ())
        entry = Store(settings.store).ledger.read(honest)
        assert entry is not None
        assert (entry.endpoint, entry.unchecked) == (bench.hub.endpoint, ())
        assert "again:UD-Q2_K_XL" in entry.names

    def test_without_a_connection_the_way_without_the_hub_is_named(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        settings = bench.settings(endpoint="http://127.0.0.1:1")
        with pytest.raises(DsollamaError) as caught:
            bench.plan(from_store=tmp_path, settings=settings)
        assert caught.value.code == "hub-unreachable"
        assert "HF_HUB_OFFLINE=1" in caught.value.hint

    def test_no_hint_leads_to_its_address(self, bench: Bench, forged: Path) -> None:
        done = bench.install(from_store=forged, **offline(bench))
        blob = Store(bench.store).blob_path(done.digest)
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
        said = command(bench, "verify")
        assert said.returncode == 7
        assert "HF_ENDPOINT" not in said.stderr + said.stdout
        assert str(forged) in said.stderr

    def test_a_store_that_has_it_not_is_told(self, bench: Bench, tmp_path: Path) -> None:
        with pytest.raises(DsollamaError, match="no weights that begin as") as caught:
            bench.plan(from_store=tmp_path)
        assert caught.value.code == "not-installed"
        assert "HF_HUB_OFFLINE=1" in caught.value.hint


def test_a_command_for_another_hub_takes_no_token_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger names the Hub, and whoever can write the store can write the ledger."""
    bench.install()
    (digest,) = [f"sha256:{path.stem}" for path in (bench.store / ".dsollama/ledger").iterdir()]
    Store(bench.store).blob_path(digest).unlink()
    bench.hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    said = command(bench, "verify", HF_ENDPOINT="http://127.0.0.1:1")
    line = said.stderr.split("`")[1]
    assert bench.hub.endpoint in line
    words = shlex.split(line)
    at = words.index("dsollama")
    variables, arguments = words[:at], words[at + 1 :]
    run = ["env", *variables, sys.executable, "-m", "dsollama", *arguments, "--yes"]
    done = subprocess.run(
        run, env=bench.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert bench.hub.requests
    assert not [each for each in bench.hub.requests if "hf_secret" in str(each.headers)]


def command(bench: Bench, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
