"""Names that are given over old ones: killed, interrupted or pruned at every step of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_store import execute
from dsollama.manifest.names import parse_name
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.store.registering import RECORD
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub
from dsollama.testing.tiny_model import tiny_model, write_gguf
from forks import Forks, forks

from conftest import TERMINUS, Bench, make_repository

NAMES = ("mine:v1", "mine:v1-thinking")
FORCED = ("install", "UD-Q2_K_XL", "--name", "mine:v1", "--force", "--yes", "--json")
NEXT = (
    ("gc", "--delete", "--yes"),
    ("remove", "third:v1", "--yes"),
    ("verify", "--repair", "third:v1"),
)
"""Commands that change a store: each finishes what was killed."""

MOST = 300
"""A guard: no registration takes as many steps."""


@dataclass
class Lab:
    """A store to copy for each run.

    Attributes:
        bench: the Hub; its store is where the copies lie.
        template: a store with two old names, and a third.
        old: digest of their weights.
        new: digest of those that the Hub has.
        run: runs commands.
    """

    bench: Bench
    template: Path
    old: str
    new: str
    run: Forks

    def fresh(self) -> Store:
        shutil.rmtree(self.bench.store, ignore_errors=True)
        shutil.copytree(self.template, self.bench.store, copy_function=os.link)
        return Store(self.bench.store)

    def weights(self, store: Store) -> set[str]:
        return {store.model(parse_name(name)).layers[0].digest for name in NAMES}


def _install(bench: Bench, store: Path, target: str, name: str) -> str:
    settings = Settings(store=store, endpoint=bench.hub.endpoint)
    plan = make_plan(InstallRequest(target, settings, name=name), bench.events.append)
    return execute(plan, bench.events.append, 2).digest


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, shards: object) -> Iterator[Lab]:
    tmp = tmp_path_factory.mktemp("register")
    other = tmp / "DeepSeek-V3.1-Terminus-UD-TQ1_0.gguf"
    write_gguf(other, tiny_model(read_template("v3.1.jinja"), layers=2, expert_width=96))
    paths = shards(3)  # type: ignore[operator]
    repository = make_repository(paths)
    repository.add(other.name, other)
    with LoopbackHub({TERMINUS: repository}) as hub:
        bench = Bench(hub, repository, tmp / "models", paths)
        template = tmp / "template"
        old = _install(bench, template, "TQ1_0", "mine:v1")
        _install(bench, template, "TQ1_0", "third:v1")
        new = _install(bench, tmp / "elsewhere", "UD-Q2_K_XL", "new")
        environment = bench.environment() | {"HOME": str(tmp), "HF_HOME": str(tmp / "hf")}
        with forks(environment, tmp / "output") as run:
            yield Lab(bench, template, old, new, run)


def with_new_weights(lab: Lab, store: Store) -> None:
    """Let the store have the new weights already: then they are only taken over."""
    for folder in ("blobs", ".dsollama/ledger"):
        for path in (lab.template.parent / "elsewhere" / folder).iterdir():
            if not (store.root / folder / path.name).exists():
                os.link(path, store.root / folder / path.name)


def check(lab: Lab, store: Store) -> str:
    """Both names have the same weights, and every layer is there; say which."""
    (weights,) = lab.weights(store)
    assert weights in {lab.old, lab.new}
    for name in NAMES:
        model = store.model(parse_name(name))
        for layer in (model.config, *model.layers):
            assert store.has_blob(layer.digest, layer.size), name
        modelfile = store.modelfile_path(parse_name(name)).read_text()
        assert weights.replace(":", "-") in modelfile
        for digest in (lab.old, lab.new):
            entry = store.ledger.read(digest)
            if entry is not None:
                assert (name in entry.names) == (digest == weights)
    return weights


@pytest.mark.parametrize("there", [True, False], ids=["taken over", "made"])
def test_killed_at_any_step_the_next_command_leaves_all_old_or_all_new_names(
    there: bool, lab: Lab
) -> None:
    seen: list[str] = []
    for before in range(1, MOST):
        store = lab.fresh()
        if there:
            with_new_weights(lab, store)
        code, said = lab.run.run(*FORCED, signals=(signal.SIGKILL,), before=before)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        code, said = lab.run.run(*NEXT[before % len(NEXT)])
        assert code == 0, said
        seen.append(check(lab, store))
    assert code == 0
    assert before > 15
    assert check(lab, store) == lab.new
    with store.blob_path(lab.new).open("rb") as blob:
        assert lab.new == f"sha256:{hashlib.file_digest(blob, 'sha256').hexdigest()}"
    assert seen == sorted(seen, key=[lab.old, lab.new].index)  # first all old, then all new
    assert set(seen) == {lab.old, lab.new}


@pytest.mark.parametrize("there", [True, False], ids=["taken over", "made"])
@pytest.mark.parametrize(
    ("number", "every"), [(signal.SIGINT, 3), (signal.SIGTERM, 9), (signal.SIGHUP, 9)]
)
def test_however_often_it_is_interrupted_it_gives_all_names_or_none(
    number: int, every: int, there: bool, lab: Lab
) -> None:
    """At every step from the Nth on two signals come, as from somebody who holds Ctrl-C down."""
    seen: list[str] = []
    for before in range(1, MOST, every):
        store = lab.fresh()
        if there:
            with_new_weights(lab, store)
        code, said = lab.run.run(*FORCED, signals=(number, number), before=before, times=MOST)
        if code == 0:
            break
        assert code == 130, said
        assert "Traceback" not in said
        seen.append(check(lab, store))
    assert code == 0
    assert lab.new in seen


def test_who_interrupts_the_last_step_is_told_that_it_is_done(lab: Lab) -> None:
    store = lab.fresh()
    with_new_weights(lab, store)
    record = store.own / RECORD
    code, said = lab.run.run(*FORCED, signals=(signal.SIGINT,) * 2, when=str(record))
    assert code == 130, said
    assert f"Stopped, but {' and '.join(NAMES)} are installed." in said
    assert check(lab, store) == lab.new


def test_a_signal_while_names_are_given_back_does_not_cut_that(lab: Lab) -> None:
    """The second manifest cannot be written; signals come all the while."""
    store = lab.fresh()
    with_new_weights(lab, store)
    before = lab.weights(store)
    second = store.manifest_path(parse_name(NAMES[1]))
    kept = second.read_bytes()
    second.unlink()
    second.mkdir()
    for number in (signal.SIGINT, signal.SIGTERM):
        code, said = lab.run.run(*FORCED, signals=(number, number), before=1, times=MOST)
        assert code in {5, 130}, said
    second.rmdir()
    second.write_bytes(kept)
    assert lab.weights(store) == before
    assert check(lab, store) == lab.old


# As a starting Ollama does that has read the manifests before: at the first new manifest.
PRUNED = """
import os, sys
blob, links = sys.argv.pop(1), sys.argv.pop(1)
def hook(event, arguments):
    if event == "os.link" and links == "none":
        raise OSError(1, "Operation not permitted")
    if event == "os.rename" and "/manifests/" in str(arguments[1]) and os.path.exists(blob):
        os.unlink(blob)
sys.addaudithook(hook)
from dsollama.cli.app import main
main()
"""


@pytest.mark.parametrize("links", ["hard links", "none"])
def test_weights_that_are_pruned_while_they_are_named_are_put_back_or_no_name_is(
    links: str, lab: Lab
) -> None:
    store = lab.fresh()
    with_new_weights(lab, store)
    done = subprocess.run(
        [sys.executable, "-c", PRUNED, str(store.blob_path(lab.new)), links, *FORCED],
        env=lab.bench.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    if links == "none":
        assert (done.returncode, last["code"]) == (5, "store-busy"), done.stderr
        assert "have just been removed" in done.stderr
        assert check(lab, store) == lab.old
    else:
        assert (done.returncode, last["moved"]) == (0, 0), done.stderr
        assert check(lab, store) == lab.new
    assert sorted(store.own.glob("tmp/*")) == []
