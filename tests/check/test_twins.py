"""Names that Ollama takes for one are told by `list` and `verify`, with what mends them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsollama.check.advice import install_command
from dsollama.check.check import check
from dsollama.check.findings import StoreReport
from dsollama.check.plan import plan_check
from dsollama.errors import NotInstalledError
from dsollama.manifest.names import parse_name
from dsollama.settings import Settings
from dsollama.store.spelling import clashes
from dsollama.store.store import Store
from handmade import put_model

from conftest import Bench


def report(store: Store, *names: str) -> StoreReport:
    plan = plan_check(Settings(store=store.root), [parse_name(each) for each in names], quick=True)
    return check(plan, lambda _event: None)


def twins(found: StoreReport) -> dict[str, str]:
    return {
        model.name: finding.hint
        for model in found.models
        for finding in model.findings
        if finding.code == "twin-name"
    }


def run(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=dict(os.environ) | {"OLLAMA_MODELS": str(store)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("names", "touched"),
    [
        (("foo:q2", "bar:q2"), set()),
        (("foo:q2", "Foo:q3", "bar:x"), {"foo:q2", "Foo:q3"}),
        (("foo:q2", "bar:Q2", "bar:x"), {"foo:q2", "bar:Q2"}),
        (("foo:q2", "Foo:q2"), {"foo:q2", "Foo:q2"}),
        (("a/foo:q2", "A/bar:x", "foo:y"), {"a/foo:q2", "A/bar:x"}),
        (("foo:q2", "Registry.ollama.ai/library/bar:x"),
         {"foo:q2", "Registry.ollama.ai/library/bar:x"}),
    ],
)  # fmt: skip
def test_each_model_in_doubt_is_told_and_what_is_advised_ends_it(
    tmp_path: Path, names: tuple[str, ...], touched: set[str]
) -> None:
    store = Store(tmp_path / "models")
    for name in names:
        put_model(store, name, name.encode())
    found = twins(report(store))
    assert set(found) == touched
    for hint in set(found.values()):
        commands = re.findall(r"`([^`]*mv [^`]*)`", hint)
        assert commands
        for command in commands:
            subprocess.run(command, shell=True, check=True)
    assert clashes(store.names()) == ()
    assert len(store.names()) == len(names)
    assert not twins(report(store))


def test_a_true_twin_can_be_removed_by_its_very_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    for name in ("foo:q2", "Foo:q2"):
        put_model(store, name, name.encode())
    (hint,) = set(twins(report(store)).values())
    assert "Or remove foo:q2 with `dsollama remove`." in hint
    assert run(store.root, "remove", "foo:q2").returncode == 0
    assert [str(each) for each in store.names()] == ["Foo:q2"]
    assert not twins(report(store))


def test_a_manifest_that_cannot_be_read_counts_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    put_model(store, "foo:q2", b"1")
    put_model(store, "bar:Q2", b"2").write_bytes(b"{")
    assert set(twins(report(store))) == {"foo:q2", "bar:Q2"}
    assert set(twins(report(store, "foo:q2"))) == {"foo:q2"}


def test_list_and_verify_say_so_in_words_and_in_json(bench: Bench) -> None:
    bench.install(variants=("plain",))
    put_model(Store(bench.store), "mine:ud-q2_k_xl", b"mine")
    words = run(bench.store, "list")
    assert words.returncode == 0
    assert "Note: The tag 'UD-Q2_K_XL' (in deepseek-v3.1-terminus:UD-Q2_K_XL) and" in words.stderr
    assert "`dsollama verify --quick` says how" in words.stderr
    listed = {
        each["name"]: each["twins"]
        for each in json.loads(run(bench.store, "list", "--json").stdout)
    }
    assert listed["mine:ud-q2_k_xl"] == ["deepseek-v3.1-terminus:UD-Q2_K_XL"]
    done = run(bench.store, "verify", "--quick", "deepseek-v3.1-terminus:UD-Q2_K_XL")
    assert done.returncode == 7
    assert "[twin-name]" in done.stdout
    assert "Hint: Give it one spelling: `mv -n " in done.stderr


def test_a_name_is_found_in_any_case_unless_two_differ_in_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    put_model(store, "Foo:q2", b"1")
    assert str(store.model(parse_name("foo:Q2")).name) == "Foo:q2"
    assert [each.name for each in report(store, "FOO:q2").models] == ["Foo:q2"]
    put_model(store, "foo:q2", b"2")
    assert str(store.find(parse_name("Foo:q2"))) == "Foo:q2"
    with pytest.raises(NotInstalledError) as caught:
        store.find(parse_name("FOO:q2"))
    assert caught.value.hint == "Take one of Foo:q2, foo:q2."


def test_the_command_that_installs_again_knows_names_in_the_stores_spelling(bench: Bench) -> None:
    store = Store(bench.store)
    put_model(store, "mine:ud-q2_k_xl", b"mine")
    done = bench.install()
    assert done.names[0] == "deepseek-v3.1-terminus:ud-q2_k_xl"
    entry = store.ledger.read(done.digest)
    assert entry is not None
    command = install_command(entry, store, entry.endpoint)
    assert "--variants" not in command
    assert "--name" not in command
