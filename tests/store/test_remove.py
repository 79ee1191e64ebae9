"""Removing models: what goes, what stays for whom, and what a crash leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.errors import NotInstalledError, StoreBusyError, StoreNotWritableError
from dsollama.manifest.manifest import MAX_MANIFEST_BYTES
from dsollama.manifest.names import parse_name
from dsollama.store import remove as remove_module
from dsollama.store import store as store_module
from dsollama.store.garbage import delete_garbage, find_garbage
from dsollama.store.remove import RemovePlan, plan_removal, remove
from dsollama.store.store import Store
from handmade import (
    HEX,
    TEMPLATE,
    WEIGHTS,
    blobs,
    digest_of,
    ledger_entry,
    manifest,
    put,
    put_blob,
    put_model,
    put_ours,
    tree,
)

LIBRARY = "manifests/registry.ollama.ai/library"
LATER = 2 * 3600.0
"""Long enough that Ollama cannot be at work on what a test just wrote."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def gone(store: Store, *names: str, all_variants: bool = False) -> RemovePlan:
    return remove(store, [parse_name(name) for name in names], all_variants=all_variants)


def collect(store: Store, *, everything: bool = False) -> set[str]:
    """Delete garbage as if two hours had passed; return the paths."""
    now = time.time() + LATER
    chosen = find_garbage(store, lambda _staging: 0, now).swept(everything=everything)
    deleted = delete_garbage(store, chosen, lambda _staging: 0, now)
    return {str(each.path.relative_to(store.root)) for each in deleted}


def test_a_model_alone_goes_with_everything_that_was_its_own(store: Store) -> None:
    put_ours(store, "a:x", b"weights")
    plan = gone(store, "a:x")
    assert tree(store.root) == dict.fromkeys(
        ["blobs", "manifests", ".dsollama/ledger", ".dsollama/modelfiles"], "empty folder"
    )
    assert plan.names == ("a:x",)
    assert {blob.digest for blob in plan.blobs} == {
        digest_of(data) for data in (b"weights", b"config", b"t")
    }
    assert plan.freed == sum(blob.bytes for blob in plan.blobs) > 0


def test_a_plan_changes_nothing_and_says_everything_as_json(store: Store) -> None:
    put_ours(store, "a:x", b"weights", b"one")
    put_ours(store, "a:x-thinking", b"weights", b"two")
    before = tree(store.root)
    plan = plan_removal(store, [parse_name("a:x")]).to_json()
    assert tree(store.root) == before
    assert json.loads(json.dumps(plan)) == plan
    assert [blob["digest"] for blob in plan["blobs"]] == [digest_of(b"one")]
    assert {blob["digest"]: blob["users"] for blob in plan["kept"]} == {
        digest_of(b"weights"): ["a:x-thinking"],
        digest_of(b"config"): ["a:x-thinking"],
    }


def test_shared_weights_go_with_their_last_user(store: Store) -> None:
    put_ours(store, "a:x", b"weights", b"one")
    put_ours(store, "a:x-thinking", b"weights", b"two")
    gone(store, "a:x")
    entry = store.ledger.read(digest_of(b"weights"))
    assert entry is not None
    assert entry.names == ("a:x-thinking",)
    assert blobs(store) == {digest_of(data) for data in (b"weights", b"config", b"two")}
    gone(store, "a:x-thinking")
    assert blobs(store) == set()
    assert list(store.ledger.entries()) == []


def test_a_foreign_model_keeps_the_weights_that_it_shares(store: Store) -> None:
    put_ours(store, "a:x", b"weights", b"one")
    put_model(store, "hf.co/somebody/else:q2", b"weights", b"other")
    plan = gone(store, "a:x")
    kept = {blob.digest: blob.users for blob in plan.kept}
    assert kept[digest_of(b"weights")] == ("hf.co/somebody/else:q2",)
    assert blobs(store) == {digest_of(data) for data in (b"weights", b"config", b"other")}
    entry = store.ledger.read(digest_of(b"weights"))
    assert entry is not None
    assert entry.names == ()


def test_all_variants_are_the_names_with_the_same_weights(store: Store) -> None:
    put_ours(store, "a:x", b"weights", b"one")
    put_ours(store, "a:x-thinking", b"weights", b"two")
    put_ours(store, "a:y", b"other", b"one")
    plan = gone(store, "a:x", all_variants=True)
    assert plan.names == ("a:x", "a:x-thinking")
    assert blobs(store) == {digest_of(data) for data in (b"other", b"config", b"one")}


def test_several_names_free_what_only_they_share(store: Store) -> None:
    put_ours(store, "a:x", b"weights", b"one")
    put_ours(store, "b:x", b"weights", b"one")
    plan = gone(store, "a:x", "b:x", "a:x")
    assert plan.names == ("a:x", "b:x")
    assert blobs(store) == set()


def broken(store: Store, case: str) -> Path:
    """Put something in the store that may name any blob."""
    place = f"{LIBRARY}/broken/latest"
    elsewhere = store.root.parent / "elsewhere"
    elsewhere.mkdir()
    data = {
        "junk": b"<html>",
        "empty": b"",
        "no layers": b'{"config": {"digest": ""}}',
        "not a digest": manifest(b"c").replace(digest_of(b"c").encode(), b"sha256:../../../x"),
        "nested too deep": b"[" * 200_000,
    }
    if case in data:
        return put(store, place, data[case])
    path = put(store, place, b"")
    if case == "huge":
        os.truncate(path, MAX_MANIFEST_BYTES + 1)
        return path
    path.unlink()
    if case == "pipe":
        os.mkfifo(path)
    elif case == "link":
        (elsewhere / "m").write_bytes(manifest(b"c", (WEIGHTS, b"weights")))
        path.symlink_to(elsewhere / "m")
    elif case == "link to a folder":
        path = path.parent
        path.rmdir()
        (elsewhere / "latest").write_bytes(manifest(b"c", (WEIGHTS, b"weights")))
        path.symlink_to(elsewhere)
    elif case == "a newer Ollama's folder":
        path.parent.rmdir()
        path = put(store, "manifests-v3/x", b"").parent
    return path


CASES = [
    "junk", "empty", "no layers", "not a digest", "nested too deep", "huge", "pipe", "link",
    "link to a folder", "a newer Ollama's folder",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_while_a_manifest_cannot_be_read_no_blob_goes(store: Store, case: str) -> None:
    put_ours(store, "a:x", b"weights")
    path = broken(store, case)
    outside = tree(store.root.parent / "elsewhere")
    all_of_them = blobs(store)
    plan = gone(store, "a:x")
    assert [each.path for each in plan.unreadable] == [path]
    assert plan.blobs == ()
    assert blobs(store) == all_of_them
    assert not (store.root / LIBRARY / "a").exists()
    assert not any("blobs/" in each for each in collect(store, everything=True))
    assert blobs(store) == all_of_them
    # Then the way that is hinted at: it goes, and gc finds what the removal could not free,
    # the small layers too.
    if case in {"link to a folder", "a newer Ollama's folder"}:
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    else:
        gone(store, "broken")
    assert {each for each in collect(store) if "blobs" in each} == {
        f"blobs/{digest.replace(':', '-')}" for digest in all_of_them
    }
    assert tree(store.root.parent / "elsewhere") == outside
    assert not (store.own / "removing").exists()


def test_a_model_without_layers_blocks_nothing(store: Store) -> None:
    """So Go writes a model of Ollama's cloud."""
    put(store, f"{LIBRARY}/cloud/latest", b'{"config": {"digest": ""}, "layers": null}')
    put_model(store, "a:x", b"weights")
    gone(store, "a:x")
    assert blobs(store) == set()
    gone(store, "cloud")
    assert tree(store.root) == {
        "blobs": "empty folder", "manifests": "empty folder",
    }  # fmt: skip


def test_a_file_that_is_no_manifest_blocks_nothing_but_keeps_what_it_names(store: Store) -> None:
    put_model(store, "a:x", b"weights", b"one")
    put(store, "manifests/.DS_Store", b"\0\1\2")
    put(store, f"{LIBRARY}/a/.DS_Store", b"\0\1\2")
    put(store, f"{LIBRARY}/a/x (copy)", manifest(b"c", (WEIGHTS, b"weights")))
    plan = gone(store, "a:x")
    assert blobs(store) == {digest_of(b"weights")}
    assert [each.users for each in plan.kept] == [(f"{LIBRARY}/a/x (copy)",)]
    assert collect(store, everything=True) == set()


def test_a_digest_counts_wherever_it_stands(store: Store) -> None:
    """Go reads keys in any case, and fields that we do not know may be read by a newer Ollama."""
    put_model(store, "a:x", b"weights", b"one")
    other = json.loads(manifest(b"c"))
    other["Layers"] = [{"mediaType": WEIGHTS, "digest": digest_of(b"weights")}]
    other["draft"] = {digest_of(b"one"): 1}
    put(store, f"{LIBRARY}/b/latest", json.dumps(other).encode())
    gone(store, "a:x")
    assert blobs(store) == {digest_of(b"weights"), digest_of(b"one")}


@pytest.mark.parametrize("kind", ["link", "folder", "all blobs behind a link"])
def test_what_is_not_a_plain_blob_is_left_alone(store: Store, kind: str) -> None:
    put_model(store, "a:x", b"weights", b"one")
    outside = store.root.parent / "outside"
    outside.mkdir()
    path = store.blob_path(digest_of(b"weights"))
    if kind == "link":
        path.rename(outside / "w")
        path.symlink_to(outside / "w")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        (store.root / "blobs").rename(outside / "blobs")
        (store.root / "blobs").symlink_to(outside / "blobs")
    before = tree(outside)
    plan = gone(store, "a:x")
    assert digest_of(b"weights") in {blob.digest for blob in plan.kept if not blob.users}
    assert digest_of(b"weights") in blobs(store)
    collect(store, everything=True)
    assert digest_of(b"weights") in blobs(store)
    assert tree(outside) == before


def test_a_manifest_that_is_a_link_goes_and_its_target_stays(store: Store) -> None:
    put_model(store, "a:x", b"weights")
    target = store.root.parent / "m"
    target.write_bytes(b"mine")
    link = store.root / LIBRARY / "a/y"
    link.symlink_to(target)
    gone(store, "a:y")
    assert not link.is_symlink()
    assert target.read_bytes() == b"mine"
    assert len(blobs(store)) == 3


def test_an_own_folder_that_is_a_link_is_left_alone(store: Store) -> None:
    put_ours(store, "a:x", b"weights")
    outside = store.root.parent / "outside"
    for name in ("modelfiles", "ledger"):
        (store.own / name).rename(outside.with_name(name))
        (store.own / name).symlink_to(outside.with_name(name))
    before = [tree(outside.with_name(name)) for name in ("modelfiles", "ledger")]
    gone(store, "a:x")
    assert [tree(outside.with_name(name)) for name in ("modelfiles", "ledger")] == before


@pytest.mark.parametrize("typed", ["a", "a:latest", "A:Latest", "library/a"])
def test_names_are_read_as_ollama_reads_them(store: Store, typed: str) -> None:
    put_model(store, "a", b"weights")
    assert gone(store, typed).names == ("a:latest",)


def test_between_two_names_letter_case_decides(store: Store) -> None:
    put_model(store, "a", b"one")
    put_model(store, "A", b"two")
    assert gone(store, "A").names == ("A:latest",)
    put_model(store, "A", b"two")
    with pytest.raises(NotInstalledError):
        plan_removal(store, [parse_name("a:LATEST")])


def test_an_unknown_name_stops_everything_and_is_told_what_there_is(store: Store) -> None:
    put_model(store, "a:x", b"weights")
    before = tree(store.root)
    with pytest.raises(NotInstalledError) as caught:
        gone(store, "a:x", "a:y")
    assert caught.value.hint == "It has a:x."
    assert tree(store.root) == before


def test_a_blob_that_is_missing_already_hinders_nothing(store: Store) -> None:
    put_ours(store, "a:x", b"weights")
    store.blob_path(digest_of(b"weights")).unlink()
    gone(store, "a:x")
    assert blobs(store) == set()
    assert list(store.ledger.entries()) == []


def test_a_blob_with_another_name_frees_nothing(store: Store) -> None:
    put_model(store, "a:x", b"weights")
    path = store.blob_path(digest_of(b"weights"))
    path.with_name("mine").hardlink_to(path)
    freed = {blob.digest: blob.bytes for blob in gone(store, "a:x").blobs}
    assert freed[digest_of(b"weights")] == 0 < freed[digest_of(b"t")]


def test_a_store_that_cannot_be_written_is_told_before_anything_goes(store: Store) -> None:
    put_model(store, "a:x", b"weights")
    put(store, ".dsollama", b"a file in the way")
    before = tree(store.root)
    with pytest.raises(StoreNotWritableError):
        gone(store, "a:x")
    assert tree(store.root) == before


def test_while_another_dsollama_changes_the_store_nothing_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.1)
    put_ours(store, "a:x", b"weights")
    before = tree(store.root)
    with FileLock(store.own / "lock"), pytest.raises(StoreBusyError):
        gone(store, "a:x")
    assert tree(store.root) == before


def test_a_name_that_ollama_makes_meanwhile_keeps_its_blobs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ollama takes no lock of ours: an `ollama cp` may end just when the manifest is deleted."""
    path = put_ours(store, "a:x", b"weights")
    copy, real = path.read_bytes(), remove_module.Deletion.delete

    def delete_then_copy(self: remove_module.Deletion, file: Path, top: Path) -> None:
        real(self, file, top)
        if file == path:
            put(store, f"{LIBRARY}/copy/latest", copy)

    monkeypatch.setattr(remove_module.Deletion, "delete", delete_then_copy)
    plan = gone(store, "a:x")
    assert plan.blobs == ()
    assert len(blobs(store)) == 3
    assert [digest for digest, _ in store.ledger.entries()] == [digest_of(b"weights")]


def killed_at(step: int, store: Store, name: str) -> bool:
    """Remove in a process of its own, and kill -9 it before its `step`-th change of a file."""
    child = os.fork()
    if child == 0:
        left = step

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in {"os.remove", "os.rmdir", "os.rename"} and str(store.root) in str(
                arguments[0]
            ):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)
        try:
            gone(store, name, all_variants=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def shared_store(root: Path) -> Store:
    store = Store(root)
    put_ours(store, "a:x", b"weights", b"one")
    put_ours(store, "a:x-thinking", b"weights", b"two")
    put_ours(store, "b:y", b"other", b"two")
    return store


def clean_removal(root: Path) -> dict[str, bytes | str]:
    store = shared_store(root)
    gone(store, "a:x", all_variants=True)
    return tree(store.root)


@pytest.mark.parametrize("way", ["gc", "the same again"])
def test_killed_at_any_step_every_model_is_whole_and_the_rest_is_cleaned(
    tmp_path: Path, way: str
) -> None:
    clean = clean_removal(tmp_path / "clean")
    step = 0
    while True:
        store = shared_store(tmp_path / f"killed-{step}")
        if not killed_at(step, store, "a:x"):
            break
        require_whole(store)
        left = {str(each.name) for each in store.models()}
        if way == "the same again":
            try:
                gone(store, "a:x", all_variants=True)
            except NotInstalledError:  # only the last step, the record, was left to do
                assert left == {"b:y"}
        collect(store)
        require_whole(store)
        if way == "the same again" or left == {"b:y"}:
            assert tree(store.root) == clean, step
        else:
            assert {str(each.name) for each in store.models()} == left
        step += 1
    assert step > 12
    assert tree(store.root) == clean


def require_whole(store: Store) -> None:
    """Every model that is there has all its blobs."""
    for model in store.models():
        for layer in (model.config, *model.layers):
            assert store.blob_path(layer.digest).exists(), model.name


NAMES = ("a:x", "a:y", "b:x", "n/c:z", "hf.co/o/r:q")
DATA = tuple(f"blob {number}".encode() for number in range(6))


@st.composite
def contents(draw: st.DrawFn) -> dict[str, tuple[int, int, int]]:
    """Models by name: which blobs are config, weights and template."""
    which = st.tuples(*(st.integers(0, len(DATA) - 1),) * 3)
    return draw(st.dictionaries(st.sampled_from(NAMES), which, min_size=1))


@settings(max_examples=80, deadline=None)
@given(
    models=contents(),
    going=st.sets(st.sampled_from(NAMES), min_size=1),
    lying=st.sets(st.sampled_from(DATA)),
    missing=st.sets(st.sampled_from(DATA)),
    known=st.sets(st.sampled_from(DATA)),
    unreadable=st.booleans(),
    all_variants=st.booleans(),
)
def test_of_any_store_only_what_is_planned_goes_and_nothing_named_is_lost(
    models: dict[str, tuple[int, int, int]],
    going: set[str],
    lying: set[bytes],
    missing: set[bytes],
    known: set[bytes],
    unreadable: bool,
    all_variants: bool,
) -> None:
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "models")
        used = {name: {digest_of(DATA[each]) for each in which} for name, which in models.items()}
        present = {DATA[each] for which in models.values() for each in which} - missing | lying
        for data in present:
            put_blob(store, data)
        for name, (config, weights, template) in models.items():
            layers = ((WEIGHTS, DATA[weights]), (TEMPLATE, DATA[template]))
            put(store, f"manifests/{parse_name(name).path}", manifest(DATA[config], *layers))
        for data in known:
            store.ledger.write(digest_of(data), ledger_entry(data, *models))
        if unreadable:
            put(store, f"{LIBRARY}/broken/latest", b"{")
        before, were = tree(store.root), blobs(store)

        asked = [parse_name(name) for name in sorted(going & models.keys())]
        if not asked:
            with pytest.raises(NotInstalledError):
                gone(store, *going)
            return
        plan = remove(store, asked, all_variants=all_variants)
        taken = {str(name) for name in asked}
        if all_variants:
            heavy = {models[name][1] for name in taken}
            taken = {name for name, which in models.items() if which[1] in heavy}
        staying = set().union(*(used[name] for name in models.keys() - taken))
        freed = set() if unreadable else set().union(*(used[name] for name in taken)) - staying

        assert set(plan.names) == taken
        assert blobs(store) == were - freed
        assert {blob.digest for blob in plan.blobs} == freed & were
        # Nothing outside the plan changed.
        planned = {str(path.relative_to(store.root)) for path in plan.manifests}
        planned |= {str(blob.path.relative_to(store.root)) for blob in plan.blobs}
        after = tree(store.root)
        changed = {path for path in before.keys() | after if before.get(path) != after.get(path)}
        rest = {path for path in changed - planned if after.get(path) != "empty folder"}
        assert all(path.startswith((".dsollama/ledger/", ".dsollama/removing/")) for path in rest)
        assert any("removing" in path for path in rest) == bool(
            unreadable and set().union(*(used[name] for name in taken)) - staying & were
        )

        # Then gc: orphans are exactly the blobs that nothing names.
        found = find_garbage(store, lambda _staging: 0, time.time() + LATER)
        orphans = {each.path.name.replace("-", ":") for each in found.findings
                   if each.kind == "orphan-blob" and each.sweep != "never"}  # fmt: skip
        assert orphans == (set() if unreadable else were - freed - staying)
        collect(store, everything=True)
        assert blobs(store) == (were - freed if unreadable else were & staying)
        assert all(digest in blobs(store) for digest in staying & were)
        assert {digest for digest, _ in store.ledger.entries()} <= blobs(store)


def test_the_hand_made_digests_are_digests() -> None:
    assert digest_of(b"") == "sha256:" + "e3b0c44298fc1c149afbf4c8996fb924" + (
        "27ae41e4649b934ca495991b7852b855"
    )
    assert len(HEX) == 64
