"""Several at once: two installs, installs beside an Ollama at work, beside `remove` and `gc`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from dsollama.install import build as build_module
from dsollama.manifest.names import parse_name
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.resources import read_template
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import Fault, HubRepository, LoopbackHub, Request
from dsollama.testing.tiny_model import ANSWER_TEXT, tiny_model, write_gguf

from conftest import Bench

OTHER = "someone/Other-GGUF"
QUANT, OTHER_QUANT = "UD-Q2_K_XL", f"hf.co/{OTHER}:Q4_K_M"
NAME = f"deepseek-v3.1-terminus:{QUANT}"
ROUNDS = 3

LISTING_RACE = '{"error":"model is required"}'
"""What Ollama 0.33.0 answers, whatever model is asked for, if a manifest of any model goes away
between the two steps in which it lists them (manifest.Manifests: glob, then stat). `ollama rm` and
the API's delete do that to it just as well; the next request is answered. Only a removal does."""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> HubRepository:
    """A second model of 30 MB with weights of its own, in one file."""
    path = tmp_path_factory.mktemp("other") / "Other-Q4_K_M.gguf"
    write_gguf(path, tiny_model(read_template("v3.1.jinja"), layers=2, expert_width=700))
    repository = HubRepository()
    repository.add(path.name, path)
    return repository


@pytest.fixture
def two(bench: Bench, other: HubRepository) -> Bench:
    """A Hub with two models."""
    bench.hub.repositories[OTHER] = other
    return bench


def start(bench: Bench, *arguments: str, store: Path | None = None) -> subprocess.Popen[str]:
    """Start a dsollama of its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "dsollama", *arguments, "--store", str(store or bench.store)],
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def install(bench: Bench, *arguments: str, store: Path | None = None) -> subprocess.Popen[str]:
    return start(bench, "install", *arguments, "--yes", "--json", store=store)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its end; return the last thing that it said."""
    out, errors = process.communicate(timeout=120)
    assert out, errors
    last: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert process.returncode == (0 if last["event"] == "installed" else last["exit"]), errors
    return last


def run(bench: Bench, *arguments: str) -> None:
    """Run one of dsollama's other commands, which must succeed."""
    process = start(bench, *arguments)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, (arguments, out, errors)


def check(store: Path, *names: str) -> None:
    """The store has these models, whole, and nothing else."""
    opened = Store(store)
    models = opened.models()
    assert {str(model.name) for model in models} == set(names)
    layers = {layer for model in models for layer in (model.config, *model.layers)}
    for layer in layers:
        with opened.blob_path(layer.digest).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        assert layer.digest == f"sha256:{found}"
    blobs = {layer.digest.replace(":", "-") for layer in layers}
    assert {path.name for path in (store / "blobs").iterdir()} == blobs
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "gc", "--json", "--store", str(store)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["findings"] == []


@contextmanager
def held(hub: LoopbackHub) -> Iterator[threading.Event]:
    """Let plans through, and hold downloads until the event that is yielded is set."""
    go = threading.Event()

    def hold(request: Request) -> Fault | None:
        if request.server == "cdn" and not request.headers.get("Range", "").startswith("bytes=0-"):
            go.wait(60)
        return None

    hub.fault = hold
    try:
        yield go
    finally:
        go.set()
        hub.fault = lambda _request: None


def downloading(bench: Bench, process: subprocess.Popen[str]) -> None:
    """Wait until an install has its folder."""
    while not [path for path in bench.staged() if (path / "merged.gguf").exists()]:
        assert process.poll() is None
        time.sleep(0.01)


BOTH = (NAME, f"{NAME}-thinking")


def test_the_second_install_of_a_model_is_told_so_and_has_nothing_left_to_do(bench: Bench) -> None:
    with held(bench.hub) as go:
        first = install(bench, QUANT)
        downloading(bench, first)
        second = finish(install(bench, QUANT))
        go.set()
        assert finish(first)["event"] == "installed"
    assert (second["code"], second["exit"]) == ("store-busy", 5)
    again = finish(install(bench, QUANT))
    assert (again["event"], again["moved"]) == ("installed", 0)
    check(bench.store, *BOTH)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_installs_that_start_together_do_not_fetch_twice(number: int, bench: Bench) -> None:
    size = sum(path.stat().st_size for path in bench.shards)
    running = [install(bench, QUANT) for _ in range(3)]
    ends = [finish(process) for process in running]
    assert {end.get("code", "installed") for end in ends} <= {"installed", "store-busy"}, ends
    assert "installed" in {end["event"] for end in ends}
    headers = len(running) * 2**21
    assert bench.hub.bytes_sent <= size + headers, number
    check(bench.store, *BOTH)


def test_who_comes_when_another_has_just_finished_only_registers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between the look for the model and the lock: another process installs there."""
    real = build_module.require_room
    inner = []

    def quicker(plan: Any, state: Any) -> None:
        real(plan, state)
        inner.append(finish(install(bench, QUANT)))

    monkeypatch.setattr(build_module, "require_room", quicker)
    done = bench.install(name="mine")
    assert inner[0]["event"] == "installed"
    assert done.moved == 0
    check(bench.store, *BOTH, f"mine:{QUANT}", f"mine:{QUANT}-thinking")


@pytest.mark.parametrize("takes_away", [False, True], ids=["looks", "takes it away"])
def test_an_install_waits_for_a_gc_that_holds_its_folder_for_a_moment(
    takes_away: bool, bench: Bench
) -> None:
    """As `dsollama gc` does: lock the folder, perhaps move it aside and delete it, let go."""
    staging = bench.store / ".dsollama" / "staging" / bench.plan().key
    staging.mkdir(parents=True)
    planned = 2 * len(bench.hub.requests)
    handle = os.open(staging / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    process = install(bench, QUANT)
    while len(bench.hub.requests) < planned:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)  # its headers are read: it waits for the lock by now
    if takes_away:
        aside = staging.rename(bench.store / "aside")
        time.sleep(0.1)
        shutil.rmtree(aside)
    os.close(handle)
    last = finish(process)
    assert last["event"] == "installed", last
    check(bench.store, *BOTH)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_two_models_at_once_into_a_new_store(number: int, two: Bench) -> None:
    running = [install(two, QUANT), install(two, OTHER_QUANT)]
    ends = [finish(process) for process in running]
    assert [end["event"] for end in ends] == ["installed", "installed"], (number, ends)
    check(two.store, *BOTH, OTHER_QUANT)


def test_one_model_into_two_stores_at_once(bench: Bench, tmp_path: Path) -> None:
    stores = [tmp_path / "one", tmp_path / "another"]
    ends = [finish(each) for each in [install(bench, QUANT, store=store) for store in stores]]
    assert ends[0]["digest"] == ends[1]["digest"]
    for store in stores:
        check(store, *BOTH)


def test_two_names_of_the_same_weights_at_once(bench: Bench) -> None:
    with held(bench.hub) as go:
        first = install(bench, QUANT, "--name", "mine")
        downloading(bench, first)
        second = finish(install(bench, QUANT, "--name", "yours"))
        go.set()
        assert finish(first)["event"] == "installed"
    assert second["code"] == "store-busy"
    running = [install(bench, QUANT, "--name", name) for name in ("yours", "theirs")]
    assert [finish(each)["moved"] for each in running] == [0, 0]
    names = {f"{name}:{QUANT}" for name in ("mine", "yours", "theirs")}
    names |= {f"{name}-thinking" for name in names}
    check(bench.store, *names)
    digest = Store(bench.store).model(parse_name(f"mine:{QUANT}")).layers[0].digest
    entry = Store(bench.store).ledger.read(digest)
    assert entry is not None
    assert set(entry.names) == names


def test_an_install_beside_remove_and_gc_in_a_loop_loses_nothing(two: Bench) -> None:
    """A second quant with the same small layers comes and goes, and gc deletes all it can."""
    other = next(iter(two.hub.repositories[OTHER].files.values()))
    two.repository.files["DeepSeek-V3.1-Terminus-UD-TQ1_0.gguf"] = other

    def come_and_go() -> None:
        assert finish(install(two, "TQ1_0"))["event"] == "installed"
        run(two, "remove", "deepseek-v3.1-terminus:UD-TQ1_0", "--all-variants", "--yes")

    def sweep() -> None:
        run(two, "gc", "--delete", "--all", "--yes")

    with repeated(come_and_go) as removals, repeated(sweep) as sweeps:
        for _ in range(ROUNDS):
            last = finish(install(two, QUANT))
            assert last["event"] == "installed", last
            for name in BOTH:
                run(two, "verify", name)
            run(two, "remove", NAME, "--all-variants", "--yes")
        assert finish(install(two, QUANT))["event"] == "installed"
    assert set(removals) == set(sweeps) == {""}
    assert min(len(removals), len(sweeps)) >= 2
    check(two.store, *BOTH)


@contextmanager
def repeated(action: Callable[[], object]) -> Iterator[list[str]]:
    """Do something again and again; the list grows by what went wrong, or by nothing."""
    end = threading.Event()
    ends: list[str] = []

    def repeat() -> None:
        while not end.is_set():
            try:
                action()
            except Exception as error:  # noqa: BLE001 - the test compares them all
                ends.append(repr(error))
            else:
                ends.append("")

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield ends
    finally:
        end.set()
        thread.join()


@pytest.mark.engines
def test_an_install_beside_an_ollama_under_load(
    two: Bench, ollama_program: Path, tmp_path: Path
) -> None:
    assert two.install(OTHER_QUANT).names == (OTHER_QUANT,)
    (tmp_path / "server").mkdir()
    environment = private_environment(tmp_path / "server", two.store, free_port(), os.environ)
    with private_ollama(ollama_program, environment, tmp_path / "ollama.log") as address:

        def talk() -> None:
            asked = [say(address, OTHER_QUANT)]
            while asked[-1] == LISTING_RACE and len(asked) <= len(BOTH):
                asked.append(say(address, OTHER_QUANT))
            races.append(len(asked) - 1)
            assert asked[-1] == ANSWER_TEXT

        races: list[int] = []
        with repeated(talk) as talks:
            for _ in range(ROUNDS):
                assert finish(install(two, QUANT))["event"] == "installed"
                for name in BOTH:
                    assert say(address, name) == ANSWER_TEXT
                assert {NAME, OTHER_QUANT} <= shown(ollama_program, environment, "list")
                assert OTHER_QUANT in shown(ollama_program, environment, "ps")
                run(two, "remove", NAME, "--all-variants", "--yes")
            assert finish(install(two, QUANT))["event"] == "installed"
        assert set(talks) == {""}
        assert len(talks) > ROUNDS
        assert sum(races) <= ROUNDS * len(BOTH)  # at most one for each name that was removed
        assert say(address, NAME) == ANSWER_TEXT
    check(two.store, *BOTH, OTHER_QUANT)


def say(address: str, name: str) -> str:
    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Hello!"}],
        "stream": False,
        "think": False,
        "options": {"num_ctx": 512, "num_thread": 1},
    }
    answer = requests.post(f"{address}/api/chat", json=body, timeout=120)
    text: str = answer.json()["message"]["content"] if answer.ok else answer.text
    return text


def shown(program: Path, environment: dict[str, str], command: str) -> set[str]:
    """Return the names in a table of `ollama list` or `ollama ps`."""
    done = subprocess.run(
        [program, command], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return {re.split(r"\s", line)[0] for line in done.stdout.splitlines()[1:]}
