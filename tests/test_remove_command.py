"""`dsollama remove` and `dsollama gc` as they are typed, and on the real Ollama."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsollama.errors import InterruptedByUserError
from dsollama.events import Event, ShardVerified
from dsollama.install.to_store import execute
from dsollama.ollama.private import free_port, private_ollama
from dsollama.store.store import Store
from dsollama.testing.tiny_model import ANSWER_TEXT, THOUGHT_TEXT
from handmade import WEIGHTS, manifest, put, put_blob, put_ours, tree

from conftest import Bench, Engine

PLAIN = "deepseek-v3.1-terminus:UD-Q2_K_XL"
THINKING = f"{PLAIN}-thinking"
LIBRARY = "manifests/registry.ollama.ai/library"

# The program itself, two hours later: what it finds is then too old for an Ollama at work.
LATER = """
import time
real = time.time
time.time = lambda: real() + 7200
from dsollama.cli.app import main
main()
"""

# The program itself, killed before it deletes the first blob.
KILLED = """
import os, signal, sys
def hook(event, arguments):
    if event == "os.remove" and "/blobs/" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from dsollama.cli.app import main
main()
"""


def run(store: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "dsollama"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=dict(os.environ) | {"OLLAMA_MODELS": str(store)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def orphans(store: Path) -> list[str]:
    named = "".join(path.read_text() for path in (store / "manifests").rglob("*") if path.is_file())
    blobs = (path.name.removeprefix("sha256-") for path in (store / "blobs").iterdir())
    return [each for each in blobs if each not in named]


def test_one_name_after_the_other_until_nothing_is_left(bench: Bench) -> None:
    weights = bench.install().digest.removeprefix("sha256:")
    before = tree(bench.store)
    dry = run(bench.store, "remove", PLAIN, "--dry-run")
    assert (dry.returncode, tree(bench.store)) == (0, before)
    assert f"keep        sha256:{weights[:12]}" in dry.stdout
    done = run(bench.store, "remove", PLAIN)
    assert (done.returncode, done.stdout) == (0, f"{PLAIN}\n")
    assert "11.6 MB stay for deepseek-v3.1-terminus:UD-Q2_K_XL-thinking." in done.stderr
    assert json.loads(run(bench.store, "list", "--json").stdout)[0]["name"] == THINKING
    assert orphans(bench.store) == []
    done = run(bench.store, "remove", THINKING, "--json")
    told = json.loads(done.stdout)
    assert (told["event"], told["names"], told["kept"]) == ("removed", [THINKING], [])
    assert told["freed"] > 11_600_000
    assert "11.6 MB of disk freed" in done.stderr
    assert set(tree(bench.store).values()) == {"empty folder"}
    again = run(bench.store, "remove", THINKING, "--json")
    assert again.returncode == 2
    assert json.loads(again.stdout)["code"] == "not-installed"


def test_all_variants_go_at_once_and_come_back_by_an_install(bench: Bench) -> None:
    bench.install()
    before = bench.files()
    done = run(bench.store, "remove", THINKING, "--all-variants")
    assert done.stdout.splitlines() == [PLAIN, THINKING]
    assert bench.files() == {}
    assert bench.install().moved > 0
    assert bench.files() == before


def test_a_foreign_models_weights_stay(bench: Bench) -> None:
    bench.install()
    data = (
        bench.store / "manifests/registry.ollama.ai/library" / PLAIN.replace(":", "/")
    ).read_bytes()
    put(Store(bench.store), f"{LIBRARY}/mine/latest", data)
    named = {layer["digest"] for layer in json.loads(data)["layers"]}
    done = run(bench.store, "remove", PLAIN, THINKING, "--json")
    assert {each["digest"] for each in json.loads(done.stdout)["kept"]} > named
    assert (bench.store / f"{LIBRARY}/mine/latest").read_bytes() == data
    assert all(Store(bench.store).blob_path(digest).exists() for digest in named)
    assert "mine:latest" in done.stderr


def test_a_manifest_that_cannot_be_read_keeps_all_and_its_way_out_works(bench: Bench) -> None:
    bench.install()
    put(Store(bench.store), f"{LIBRARY}/broken/latest", b"<html>")
    done = run(bench.store, "remove", PLAIN, THINKING)
    assert done.returncode == 0
    assert "broken/latest is not a manifest, and so may name any blob: all stay." in done.stderr
    assert "remove it with `dsollama remove broken:latest`, then run `dsollama gc" in done.stderr
    assert len(orphans(bench.store)) == 5
    blocked = run(bench.store, "gc", "--delete", "--all")
    assert "broken/latest is not a manifest" in blocked.stderr
    assert len(orphans(bench.store)) == 5
    assert run(bench.store, "remove", "broken:latest").returncode == 0
    assert run(bench.store, "gc", "--delete").returncode == 0
    assert set(tree(bench.store).values()) == {"empty folder"}


@pytest.mark.parametrize("way", [("gc", "--delete"), ("remove", PLAIN, THINKING)])
def test_killed_between_manifest_and_blobs_it_is_finished_later(
    bench: Bench, way: tuple[str, ...]
) -> None:
    bench.install()
    done = run(bench.store, "remove", PLAIN, THINKING, code=KILLED)
    assert done.returncode == -signal.SIGKILL
    assert len(orphans(bench.store)) == 5
    assert run(bench.store, "list", "--json").stdout == "[]\n"
    report = json.loads(run(bench.store, "gc", "--json").stdout)
    assert {each["path"] for each in report["findings"] if each["kind"] == "orphan-blob"} == {
        str(path) for path in (bench.store / "blobs").iterdir()
    }
    assert all(each["ours"] for each in report["findings"])
    finished = run(bench.store, *way)
    assert finished.returncode == 0, finished.stderr
    assert set(tree(bench.store).values()) == {"empty folder"}


def test_an_interrupted_install_is_told_and_kept_and_goes_on(bench: Bench) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == 1:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError):
        execute(bench.plan(), stop, connections=1)
    resumed = bench.plan().state.resumed
    report = run(bench.store, "gc")
    assert "the same install would go on from there" in report.stdout
    assert "--delete --all frees" in report.stderr
    assert json.loads(run(bench.store, "gc", "--json").stdout)["findings"][0]["in_place"] == resumed
    assert run(bench.store, "gc", "--delete").stdout == ""
    assert bench.plan().state.resumed == resumed > 0
    assert run(bench.store, "gc", "--delete", "--all").stdout.startswith(".dsollama/staging/")
    assert bench.plan().state.resumed == 0
    assert bench.install().moved > 0


def test_an_install_at_work_does_not_notice_a_gc(bench: Bench) -> None:
    seen = []

    def meanwhile(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == 1:
            seen.append(run(bench.store, "gc", "--delete", "--all", "--json"))

    assert execute(bench.plan(), meanwhile, connections=1).moved
    told = json.loads(seen[0].stdout)
    assert told["deleted"] == []
    assert [each["why"] for each in told["left"]] == ["an install is at work on it"]
    assert bench.files()


def test_what_ollama_left_goes_with_all_and_only_when_it_is_old(bench: Bench) -> None:
    bench.install()
    before = tree(bench.store)
    store = Store(bench.store)
    orphan = put_blob(store, b"foreign")
    part = put(store, f"blobs/sha256-{'0' * 64}-partial-0")
    young = run(bench.store, "gc", "--delete", "--all", "--json")
    assert json.loads(young.stdout)["deleted"] == []
    report = run(bench.store, "gc", code=LATER)
    assert report.stdout.count("--delete --all") == 2
    assert json.loads(run(bench.store, "gc", "--delete", "--json", code=LATER).stdout)["freed"] == 0
    done = run(bench.store, "gc", "--delete", "--all", code=LATER)
    assert done.stdout.splitlines() == [f"blobs/{each.name}" for each in sorted([part, orphan])]
    assert tree(bench.store) == before


def test_a_store_that_is_not_there_has_no_garbage_and_is_not_made(tmp_path: Path) -> None:
    for arguments in (["gc"], ["gc", "--delete", "--all"], ["remove", "x"]):
        assert run(tmp_path / "no", *arguments).returncode == (2 if "x" in arguments else 0)
    assert not (tmp_path / "no").exists()
    assert "has no garbage" in run(tmp_path / "no", "gc").stderr


@pytest.mark.parametrize("name", ["a b", "../../etc", "x:y:z", ""])
def test_a_name_that_ollama_would_not_take_is_told(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, "remove", name)
    assert done.returncode == 2
    assert "is not a name that Ollama accepts" in done.stderr


@pytest.mark.parametrize("command", [("remove", "a:x"), ("gc", "--delete")])
@pytest.mark.parametrize("answer", ["", "n", "y", "--yes"])
def test_at_a_terminal_a_gigabyte_is_asked_for(
    tmp_path: Path, command: tuple[str, ...], answer: str
) -> None:
    store = Store(tmp_path / "models")
    path = store.root / LIBRARY / "a/x"
    put_ours(store, "a:x", b"weights")
    blob = next(
        each for each in (store.root / "blobs").iterdir() if each.read_bytes() == b"weights"
    )
    with blob.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 10**9)
    if command[0] == "gc":
        path.unlink()
    terminal, inner = pty.openpty()
    options = [answer] if answer == "--yes" else []
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", *command, *options],
        env=dict(os.environ) | {"OLLAMA_MODELS": str(store.root), "TERM": "dumb"},
        stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    seen = ""
    while True:
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:
            break
        if seen.endswith("[y/N]: "):
            os.write(terminal, f"{answer}\n".encode())
    code = process.wait(20)
    os.close(terminal)
    assert ("free 1.0 GB? [y/N]" in seen) == (answer != "--yes"), seen
    declined = answer in {"", "n"}
    assert (code, blob.exists()) == ((1, True) if declined else (0, False)), seen
    assert ("Nothing was changed." in seen) == declined


@pytest.mark.engines
def test_on_the_real_ollama_the_name_is_gone_at_once_and_the_other_still_runs(
    engine: Engine, tmp_path: Path
) -> None:
    store = tmp_path / "models"
    shutil.copytree(engine.store, store)
    address = f"127.0.0.1:{free_port()}"
    environment = dict(engine.environment) | {"OLLAMA_MODELS": str(store), "OLLAMA_HOST": address}

    def ollama(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(engine.program), *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    plain, thinking = engine.names
    with private_ollama(engine.program, environment, tmp_path / "ollama.log"):
        assert ANSWER_TEXT in ollama("run", plain, "Hello!").stdout
        assert ollama("cp", plain, "kept").returncode == 0
        assert plain in ollama("list").stdout
        assert run(store, "remove", plain).returncode == 0
        listed = ollama("list").stdout.split()
        assert plain not in listed
        assert {thinking, "kept:latest"} <= set(listed)
        assert "not found" in ollama("show", plain).stderr
        answer = ollama("run", thinking, "Hello!").stdout
        assert THOUGHT_TEXT in answer
        assert ANSWER_TEXT in answer
        # Loaded as it is, the last name goes too, and the running server takes no harm.
        done = run(store, "remove", thinking, "kept", "--json")
        assert json.loads(done.stdout)["freed"] > 11_000_000
        assert list((store / "blobs").iterdir()) == []
        assert ollama("list").stdout.split()[1:].count(thinking) == 0
        assert orphans(store) == []


@pytest.mark.engines
def test_a_broken_manifest_that_ollama_cannot_remove_we_can(engine: Engine, tmp_path: Path) -> None:
    store = tmp_path / "models"
    address = f"127.0.0.1:{free_port()}"
    environment = dict(engine.environment) | {"OLLAMA_MODELS": str(store), "OLLAMA_HOST": address}
    path = put(Store(store), f"{LIBRARY}/broken/latest", b"<html>")
    with private_ollama(engine.program, environment, tmp_path / "ollama.log"):
        theirs = subprocess.run(
            [str(engine.program), "rm", "broken"],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert theirs.returncode != 0
        assert path.exists()
        assert run(store, "remove", "broken").returncode == 0
    assert not path.exists()


def test_the_hand_made_manifest_is_what_ollama_writes(bench: Bench) -> None:
    bench.install()
    real = json.loads((bench.store / LIBRARY / PLAIN.replace(":", "/")).read_bytes())
    made = json.loads(manifest(b"c", (WEIGHTS, b"w")))
    assert real.keys() - {"mediaType"} == made.keys()
    assert real["layers"][0].keys() == made["layers"][0].keys()
    assert real["layers"][0]["mediaType"] == WEIGHTS
