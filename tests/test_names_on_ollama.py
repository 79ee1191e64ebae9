"""What Ollama 0.33.0 makes of names that differ in case, and that an install brings in no such."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from dsollama.errors import InterruptedByUserError, InvalidNameError, NameTakenError
from dsollama.install import server_register
from dsollama.install.plan import InstallPlan
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_api import ToApi
from dsollama.manifest.names import parse_name
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.ollama.upload import Blobs
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub
from dsollama.testing.tiny_model import tiny_model, write_shards

from conftest import STEM, TERMINUS, Bench, make_repository

TRIES = 200
"""Of something that goes wrong at least one time in eight (measured; Go begins to walk a map of up
to eight at any of its eight slots): that it never does has a chance of 3 in 10^12."""

pytestmark = pytest.mark.engines


@dataclass
class Running:
    """A private Ollama on the store of a bench."""

    address: str
    program: Path

    def shown(self, name: str) -> Counter[int]:
        """Ask for a model many times; return how often each status was answered."""
        asked = (
            requests.post(f"{self.address}/api/show", json={"model": name}, timeout=30)
            for _ in range(TRIES)
        )
        return Counter(answer.status_code for answer in asked)

    def remove(self, name: str) -> None:
        environment = {"HOME": "/nonexistent", "OLLAMA_HOST": self.address.removeprefix("http://")}
        subprocess.run(
            [str(self.program), "rm", name], env=environment, check=True, capture_output=True
        )


@pytest.fixture
def running(bench: Bench, ollama_program: Path, tmp_path: Path) -> Iterator[Running]:
    home = tmp_path / "ollama-home"
    home.mkdir()
    environment = private_environment(home, bench.store, free_port(), os.environ)
    with private_ollama(ollama_program, environment, tmp_path / "ollama.log") as address:
        yield Running(address, ollama_program)


def theirs(bench: Bench, name: str, tmp_path: Path) -> str:
    """Put a model of the user's with weights of its own into the store; return their digest."""
    folder = tmp_path / name.replace("/", "-").replace(":", "-")
    folder.mkdir()
    other = write_shards(folder, STEM, tiny_model(read_template("v3.1.jinja"), expert_width=768), 1)
    with LoopbackHub({TERMINUS: make_repository(other)}) as hub:
        theirs = Bench(hub, hub.repositories[TERMINUS], bench.store, other)
        return theirs.install(name=name, variants=("plain",)).digest


def move(bench: Bench, old: str, new: str) -> None:
    """Rename by hand, so that Ollama has no say in it."""
    store = Store(bench.store)
    target = store.manifest_path(parse_name(new))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(store.manifest_path(parse_name(old)), target)
    store.manifest_path(parse_name(old)).unlink()


def test_an_install_beside_another_spelling_leaves_every_name_found(
    bench: Bench, running: Running, tmp_path: Path
) -> None:
    weights = theirs(bench, "Team/Mine:ud-q2_k_xl", tmp_path)
    done = bench.install(name="mine:UD-Q2_K_XL", variants=("plain",))
    assert done.names == ("Mine:ud-q2_k_xl",)
    for name in (
        "Mine:ud-q2_k_xl",
        "mine:UD-Q2_K_XL",
        "Team/Mine:ud-q2_k_xl",
        "team/MINE:ud-q2_k_xl",
    ):
        assert running.shown(name) == {200: TRIES}
    running.remove("mine:UD-Q2_K_XL")
    assert [str(each) for each in Store(bench.store).names()] == ["Team/Mine:ud-q2_k_xl"]
    assert Store(bench.store).blob_path(weights).exists()
    assert not Store(bench.store).blob_path(done.digest).exists()


@pytest.mark.parametrize(
    "twin", ["Registry.ollama.ai/library/other:x", "team/MINE:x", "other:V1"], ids=str
)
def test_a_second_spelling_of_any_part_makes_ollama_lose_models(
    bench: Bench, running: Running, twin: str
) -> None:
    """The reason for all this; should it fail, Ollama has become better than we know."""
    bench.install(name="mine:v1", variants=("plain",))
    assert running.shown("mine:v1") == {200: TRIES}
    bench.install(name="other:y", variants=("plain",))
    move(bench, "other:y", twin)
    assert set(running.shown("mine:v1")) == {200, 404}


@pytest.mark.parametrize("tag", ["local", "cloud", "q2-cloud"])
def test_a_tag_that_ollama_takes_for_a_place_is_refused(
    bench: Bench, running: Running, tag: str
) -> None:
    bench.install(name="mine:v1", variants=("plain",))
    move(bench, "mine:v1", f"mine:{tag}")
    assert 200 not in running.shown(f"mine:{tag}")
    with pytest.raises(InvalidNameError) as caught:
        bench.plan(name=f"mine:{tag}", variants=("plain",))
    assert f"--name mine:{tag}-1" in caught.value.hint
    bench.plan(name=f"mine:{tag}-1", variants=("plain",))


def by_api(bench: Bench, staging: Path, **changes: object) -> InstallRequest:
    settings = Settings(store=staging, endpoint=bench.hub.endpoint)
    return InstallRequest("UD-Q2_K_XL", settings, variants=("plain",), **changes)  # type: ignore[arg-type]


def planned(request: InstallRequest, running: Running) -> InstallPlan:
    return make_plan(request, print, ToApi(running.address, request.settings.store))


def install(plan: InstallPlan, running: Running) -> None:
    ToApi(running.address, plan.store).install(plan, print, 4)


def test_by_the_api_the_servers_spelling_and_its_models_count(
    bench: Bench, running: Running, tmp_path: Path
) -> None:
    weights = theirs(bench, "Mine:v1", tmp_path)
    beside = planned(by_api(bench, tmp_path / "staging", name="mine:V2"), running)
    assert [str(each.name) for each in beside.models] == ["Mine:V2"]
    assert beside.replaces == ()
    over = planned(by_api(bench, tmp_path / "staging", name="mine:V1"), running)
    (replaced,) = over.replaces
    assert (str(replaced.name), replaced.weights) == ("Mine:v1", weights)
    # What was not in the plan is not replaced, and the merged file waits here.
    unaware = replace(over, replaces=())
    with pytest.raises(NameTakenError, match="another model Mine:v1"):
        install(unaware, running)
    assert Blobs(running.address).weights("Mine:v1") == weights
    assert len(list((tmp_path / "staging" / "blobs").iterdir())) == 1
    install(over, running)
    assert Blobs(running.address).weights("mine:v1") != weights
    assert running.shown("mine:V1") == {200: TRIES}


def test_by_the_api_what_a_killed_run_made_there_is_its_own(
    bench: Bench, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the weights' digest is learned when the name is there; killed before that, it
    must not stand in the way. What somebody else puts there meanwhile must."""
    monkeypatch.setattr(server_register, "is_this_machine", lambda _address: False)
    request = by_api(bench, tmp_path / "staging", name="mine:v1")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server_register, "remember", killed)
        with pytest.raises(InterruptedByUserError):
            install(planned(request, running), running)
    assert running.shown("mine:v1") == {200: TRIES}
    assert planned(request, running).replaces == ()
    Blobs(running.address).delete("mine:v1")
    theirs(bench, "mine:v1", tmp_path)
    plan = planned(request, running)
    assert [str(each.name) for each in plan.replaces] == ["mine:v1"]


def test_by_the_api_the_same_again_replaces_nothing_and_other_settings_do(
    bench: Bench, running: Running, tmp_path: Path
) -> None:
    request = by_api(bench, tmp_path / "staging", name="mine:v1")
    install(planned(request, running), running)
    assert planned(request, running).replaces == ()
    server = Blobs(running.address)
    server.create({"model": "mine:v1", "from": "mine:v1", "system": "Mine."}, lambda _line: None)
    (replaced,) = planned(request, running).replaces
    assert replaced.same_weights
    server.create(
        {"model": "mine:v1", "from": "mine:v1", "system": "", "parameters": {"top_k": 3}},
        lambda _line: None,
    )
    (replaced,) = planned(request, running).replaces
    assert replaced.same_weights


def test_by_the_api_a_model_of_ours_called_as_the_handed_one_is_no_hindrance(
    bench: Bench, running: Running, tmp_path: Path
) -> None:
    """Ollama spells the name that it pulls as it spells others, too."""
    theirs(bench, "Dsollama-Handover/Manifest:v1", tmp_path)
    request = by_api(bench, tmp_path / "staging", name="mine:v1")
    install(planned(request, running), running)
    assert set(map(str.casefold, Blobs(running.address).names())) == {
        "mine:v1",
        "dsollama-handover/manifest:v1",
    }
