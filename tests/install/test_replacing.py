"""What an install would replace is planned, told, asked for, and looked at again under the lock."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from dsollama.errors import InvalidNameError, NameTakenError, StoreNotWritableError
from dsollama.events import Event, StepStarted
from dsollama.install.to_store import execute
from dsollama.manifest.names import parse_name
from dsollama.store.store import Store
from handmade import digest_of, put, put_model

from conftest import Bench, read_terminal

PLAIN = "deepseek-v3.1-terminus:UD-Q2_K_XL"
MINE = "my-finetune:latest"


def run(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", *arguments],
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def at_a_terminal(bench: Bench, typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run an install as a person who types something at the first question."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", *arguments],
        env=bench.environment() | {"TERM": "xterm", "COLUMNS": "200"},
        stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    os.write(terminal, typed)
    seen = read_terminal(terminal)
    os.close(terminal)
    return process.wait(60), seen.decode()


@pytest.fixture
def mine(bench: Bench) -> Path:
    """The manifest of a model of the user's."""
    return put_model(Store(bench.store), MINE, b"years of work")


NAMED = ("--name", MINE, "--variants", "plain")


def test_a_dry_run_says_what_is_lost_in_words_and_in_json(bench: Bench, mine: Path) -> None:
    words = run(bench, *NAMED, "--dry-run")
    digest = digest_of(b"years of work")
    assert words.returncode == 0
    assert f"replaces    {MINE} (weights {digest[7:19]}, 13 B)" in words.stdout
    found = json.loads(run(bench, *NAMED, "--dry-run", "--json").stdout)["replaces"]
    assert found == [
        {
            "name": MINE,
            "weights": digest,
            "size": 13,
            "same_weights": False,
            "weights_also_in": [],
        }
    ]


@pytest.mark.parametrize("options", [(), ("--yes",), ("--json",)])
def test_a_script_replaces_nothing_without_force(
    bench: Bench, mine: Path, options: tuple[str, ...]
) -> None:
    before = bench.files()
    done = run(bench, *NAMED, *options)
    assert done.returncode == 2, done.stderr
    told = done.stderr + done.stdout
    assert f"would replace {MINE}" in told
    assert "--name my-finetune-2:latest. --force replaces it." in told
    if "--json" in options:
        assert json.loads(done.stdout.splitlines()[-1])["code"] == "name-taken"
    assert bench.files() == before
    assert bench.staged() == []
    assert bench.hub.bytes_sent < 2 * 2**20  # the headers


def test_with_force_the_model_is_replaced_and_it_is_said(bench: Bench, mine: Path) -> None:
    done = run(bench, *NAMED, "--force")
    assert (done.returncode, done.stdout) == (0, f"{MINE}\n"), done.stderr
    assert f"Replaces {MINE} (weights" in done.stderr
    assert Store(bench.store).model(parse_name(MINE)).layers[0].size > 10**6


def test_at_a_terminal_a_mere_enter_means_no(bench: Bench, mine: Path) -> None:
    before = bench.files()
    status, said = at_a_terminal(bench, b"\n", *NAMED)
    assert status == 1
    assert f"Replace {MINE} (weights" in said
    assert "[y/N]" in said
    assert "Nothing was changed." in said
    assert bench.files() == before
    status, said = at_a_terminal(bench, b"y\n", *NAMED)
    assert status == 0, said
    assert Store(bench.store).model(parse_name(MINE)).layers[0].size > 10**6


def test_the_same_again_replaces_nothing(bench: Bench) -> None:
    bench.install()
    assert bench.plan().replaces == ()
    assert bench.plan(target="q2_k_xl", variants=("thinking",)).replaces == ()
    Store(bench.store).manifest_path(parse_name(PLAIN)).write_bytes(b"{")  # ours, and broken
    assert bench.plan().replaces == ()
    assert run(bench).returncode == 0


def test_without_a_ledger_the_merged_header_tells_the_same_model(bench: Bench) -> None:
    done = bench.install()
    Store(bench.store).ledger.remove(done.digest)
    assert bench.plan().replaces == ()
    blob = Store(bench.store).blob_path(done.digest)
    with blob.open("r+b") as file:
        file.write(b"other")
    assert [str(each.name) for each in bench.plan().replaces] == [PLAIN, f"{PLAIN}-thinking"]


def test_weights_that_other_names_have_too_are_said_to_stay(bench: Bench, mine: Path) -> None:
    put_model(Store(bench.store), "copy:v1", b"years of work")
    (replaced,) = bench.plan(name=MINE, variants=("plain",)).replaces
    assert replaced.shared == ("copy:v1",)
    assert str(replaced).endswith(", also in copy:v1)")


def test_a_model_in_another_spelling_is_the_one_that_is_replaced(bench: Bench, mine: Path) -> None:
    plan = bench.plan(name="My-FineTune:LATEST", variants=("plain",))
    assert [str(each.name) for each in plan.models] == [MINE]
    assert [str(each.name) for each in plan.replaces] == [MINE]
    assert "the name my-finetune:latest is spelled as Ollama finds it, not My-FineTune:LATEST" in (
        plan.notes
    )


def test_a_part_that_is_spelled_anew_meanwhile_is_followed(bench: Bench) -> None:
    """Another model brings in `mine` while ours is under way as `Mine`."""

    def take(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "register":
            put_model(Store(bench.store), "team/mine:v9", b"theirs")

    done = execute(bench.plan(name="Mine:v1", variants=("plain",)), take, 2)
    assert done.names == ("mine:v1",)
    store = Store(bench.store)
    assert [str(each) for each in store.names()] == ["mine:v1", "team/mine:v9"]
    entry = store.ledger.read(done.digest)
    assert entry is not None
    assert entry.names == ("mine:v1",)
    assert store.modelfile_path(parse_name("mine:v1")).is_file()


@pytest.mark.parametrize("spelling", ["mine:v1", "MINE:V1"])
@pytest.mark.parametrize("again", [False, True])
def test_a_name_that_is_taken_meanwhile_is_refused_and_what_came_is_kept(
    bench: Bench, spelling: str, again: bool
) -> None:
    if again:  # the weights are there already, so that there is nothing to download
        bench.install(name="other:v1", variants=("plain",))

    def take(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "register":
            put_model(Store(bench.store), spelling, b"theirs")

    plan = bench.plan(name="mine:v1", variants=("plain",))
    with pytest.raises(NameTakenError, match=f"another model {spelling} ") as caught:
        execute(plan, take, 2)
    assert "What was downloaded is kept." in caught.value.hint
    assert "--name " in caught.value.hint
    weights = Store(bench.store).model(parse_name(spelling)).layers[0]
    assert weights.digest == digest_of(b"theirs")
    assert bench.install(name="mine:v2", variants=("plain",)).moved == 0


def test_a_replaced_name_is_no_longer_one_of_its_old_weights(bench: Bench, single: Path) -> None:
    old = bench.install(name="mine:v1", variants=("plain",)).digest
    bench.repository.add(single.name, single)
    store = Store(bench.store)
    new = bench.install("tq1_0", name="mine:v1", variants=("plain",)).digest
    entries = {digest: entry.names for digest, entry in store.ledger.entries()}
    assert entries == {old: (), new: ("mine:v1",)}


def test_what_was_agreed_on_and_is_gone_meanwhile_is_no_hindrance(bench: Bench, mine: Path) -> None:
    plan = bench.plan(name=MINE, variants=("plain",))
    assert plan.replaces
    mine.unlink()
    assert execute(plan, bench.events.append, 2).names == (MINE,)


LONG = "h" * 300


@pytest.mark.parametrize(
    ("name", "kind", "helps"),
    [
        (f"{LONG}/team/mine:v1", InvalidNameError, "mine-2:v1"),
        ("mine:" + "t" * 75, InvalidNameError, f"mine:{'t' * 71}"),
        ("mine:local", InvalidNameError, "mine:local-1"),
        ("mine:cloud", InvalidNameError, "mine:cloud-1"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_the_download_with_one_that_can(
    bench: Bench, name: str, kind: type[Exception], helps: str
) -> None:
    with pytest.raises(kind) as caught:
        bench.plan(name=name)
    assert f"--name {helps}." in caught.value.hint  # type: ignore[attr-defined]
    assert str(bench.plan(name=helps).models[0].name) == helps


@pytest.mark.parametrize(
    ("repository", "helps"),
    [
        ("own.er/Some-GGUF", "Some-GGUF:UD-Q2_K_XL"),
        (f"owner/{'r' * 90}", f"{'r' * 71}:UD-Q2_K_XL"),
        ("o" * 81 + "/Some-GGUF", "Some-GGUF:UD-Q2_K_XL"),
    ],
)
def test_a_repository_whose_name_ollama_refuses_gets_a_name_that_it_takes(
    bench: Bench, repository: str, helps: str
) -> None:
    bench.hub.repositories[repository] = bench.repository
    target = f"hf.co/{repository}:UD-Q2_K_XL"
    with pytest.raises(InvalidNameError) as caught:
        bench.plan(target)
    assert f"--name {helps}." in caught.value.hint
    assert str(bench.plan(target, name=helps).models[0].name) == helps


def test_a_place_that_is_taken_by_a_file_is_refused_before_the_download(bench: Bench) -> None:
    put(Store(bench.store), "manifests/registry.ollama.ai/library/mine", b"")
    with pytest.raises(StoreNotWritableError, match="is in its way") as caught:
        bench.plan(name="mine:v1")
    assert "--name mine-2:v1." in caught.value.hint
    bench.plan(name="mine-2:v1")
