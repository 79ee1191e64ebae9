"""Garbage: what is found, whose it is, what deletes it, and what nothing may touch."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from dsollama.errors import StoreBusyError
from dsollama.store import stopped as stopped_module
from dsollama.store import store as store_module
from dsollama.store.finding import GRACE_SECONDS, Finding, Kind, Sweep
from dsollama.store.garbage import Garbage, delete_garbage, find_garbage, freed
from dsollama.store.store import Store
from dsollama.store.unfinished import write_removal
from dsollama.store.uploading import Uploads, uploading, uploads
from dsollama.transfer.journal import claimed_bytes, write_claims
from handmade import (
    HEX,
    blobs,
    digest_of,
    ledger_entry,
    put,
    put_blob,
    put_model,
    put_ours,
    tree,
)

LATER = GRACE_SECONDS + 1
MUCH_LATER = 10 * 365 * 24 * 3600.0
"""As far as a clock without a battery is off, and no reason to delete what can go on."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def find(store: Store, after: float = LATER) -> Garbage:
    return find_garbage(store, claimed_bytes, time.time() + after)


def one(store: Store, after: float = LATER) -> Finding:
    (found,) = find(store, after).findings
    return found


def delete(store: Store, *, everything: bool = False, after: float = LATER) -> set[str]:
    now = time.time() + after
    chosen = find_garbage(store, claimed_bytes, now).swept(everything=everything)
    deleted = delete_garbage(store, chosen, claimed_bytes, now)
    return {str(each.path.relative_to(store.root)) for each in deleted}


def stopped(store: Store, key: str = "k", claimed: int = 3) -> Path:
    """An install that stopped."""
    staging = put(store, f".dsollama/staging/{key}/merged.gguf", b"part of a model").parent
    (staging / "lock").touch()
    if claimed:
        write_claims(staging, {0: claimed})
    return staging


@pytest.mark.parametrize("ends", ["staging", "staging/k"])
def test_an_install_that_ends_while_gc_looks_is_no_failure(
    ends: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder, and the one of all installs, go away without the store's lock."""
    staging = stopped(store)
    real = stopped_module.is_own_folder

    def looks(root: Path, *parts: str) -> bool:
        found = real(root, *parts)
        if root.joinpath(*parts) == staging.parent:
            shutil.rmtree(store.own / ends)
        return found

    monkeypatch.setattr(stopped_module, "is_own_folder", looks)
    assert find(store).findings == ()
    assert not staging.exists()


def test_an_install_that_ended_since_is_not_deleted(store: Store) -> None:
    staging = stopped(store)
    shutil.rmtree(staging)
    assert not stopped_module.delete_install(store, staging)
    shutil.rmtree(staging.parent)
    assert not stopped_module.delete_install(store, staging)
    assert not staging.parent.exists()


def foreign_orphan(store: Store) -> Path:
    return put_blob(store, b"foreign")


def our_orphan(store: Store) -> Path:
    store.ledger.write(digest_of(b"ours"), ledger_entry(b"ours"))
    return put_blob(store, b"ours")


def partial(store: Store) -> Path:
    return put(store, f"blobs/sha256-{HEX}-partial")


def part_of_a_partial(store: Store) -> Path:
    return put(store, f"blobs/sha256-{HEX}-partial-12")


def newer_partial(store: Store) -> Path:
    return put(store, f"blobs/sha256-{HEX}.tmp")


def nameless(store: Store) -> Path:
    return put(store, "blobs/sha256-1234567")


def unknown(store: Store) -> Path:
    return put(store, "blobs/notes.txt")


def deeper(store: Store) -> Path:
    return put(store, f"blobs/backup/{digest_of(b'x').replace(':', '-')}")


def upper_case(store: Store) -> Path:
    return put(store, f"blobs/sha256-{'A' * 64}")


def linked_blob(store: Store) -> Path:
    target = store.root.parent / "target"
    target.write_bytes(b"mine")
    path = put_blob(store, b"link")
    path.unlink()
    path.symlink_to(target)
    return path


def pipe(store: Store) -> Path:
    path = put_blob(store, b"pipe")
    path.unlink()
    os.mkfifo(path)
    return path


def resumable(store: Store) -> Path:
    return stopped(store)


def spoilt(store: Store) -> Path:
    return stopped(store, claimed=0)


def staging_with_a_link(store: Store) -> Path:
    staging = stopped(store)
    (staging / "x.gguf").symlink_to("/etc/passwd")
    return staging


def linked_staging(store: Store) -> Path:
    outside = store.root.parent / "outside"
    stopped(Store(outside))
    path = store.own / "staging" / "k"
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / ".dsollama/staging/k")
    return path


def all_staging_behind_a_link(store: Store) -> Path:
    outside = store.root.parent / "outside"
    stopped(Store(outside))
    store.own.mkdir(parents=True, exist_ok=True)
    (store.own / "staging").symlink_to(outside / ".dsollama/staging")
    return store.own / "staging"


def temporary(store: Store) -> Path:
    return put(store, ".dsollama/tmp/123-abcd")


def modelfile(store: Store) -> Path:
    return put(store, ".dsollama/modelfiles/registry.ollama.ai/library/a/x")


def linked_modelfile(store: Store) -> Path:
    path = modelfile(store)
    path.unlink()
    path.symlink_to("/etc/passwd")
    return path


def not_a_modelfile(store: Store) -> Path:
    return put(store, ".dsollama/modelfiles/notes.txt")


def entry(store: Store) -> Path:
    store.ledger.write(digest_of(b"gone"), ledger_entry(b"gone", "a:x"))
    return store.ledger.path(digest_of(b"gone"))


def unreadable_entry(store: Store) -> Path:
    return put(store, f".dsollama/ledger/{HEX}.json", b"<html>")


def not_an_entry(store: Store) -> Path:
    return put(store, ".dsollama/ledger/notes.json")


def record(store: Store) -> Path:
    return write_removal(store, ["a:x"], [digest_of(b"gone")])


def half_deleted(store: Store) -> Path:
    return put(store, ".dsollama/removing/k-12ab/merged.gguf")


# What each is, whose, and what deletes it: at once, after an hour, after years.
FOUND: dict[Callable[[Store], Path], tuple[Kind, bool, str]] = {
    foreign_orphan: (Kind.BLOB, False, "NAA"),
    our_orphan: (Kind.BLOB, True, "OOO"),
    partial: (Kind.PARTIAL, False, "NAA"),
    part_of_a_partial: (Kind.PARTIAL, False, "NAA"),
    newer_partial: (Kind.PARTIAL, False, "NAA"),
    nameless: (Kind.PARTIAL, False, "NAA"),
    unknown: (Kind.PARTIAL, False, "NNN"),
    deeper: (Kind.PARTIAL, False, "NNN"),
    upper_case: (Kind.PARTIAL, False, "NNN"),
    linked_blob: (Kind.BLOB, False, "NNN"),
    pipe: (Kind.BLOB, False, "NNN"),
    resumable: (Kind.STAGING, True, "AAA"),
    spoilt: (Kind.STAGING, True, "OOO"),
    staging_with_a_link: (Kind.STAGING, True, "NNN"),
    linked_staging: (Kind.STAGING, False, "NNN"),
    all_staging_behind_a_link: (Kind.STAGING, False, "NNN"),
    temporary: (Kind.LEFTOVER, True, "NOO"),
    modelfile: (Kind.MODELFILE, True, "OOO"),
    linked_modelfile: (Kind.MODELFILE, True, "NNN"),
    not_a_modelfile: (Kind.MODELFILE, False, "NNN"),
    entry: (Kind.LEDGER, True, "OOO"),
    unreadable_entry: (Kind.LEDGER, True, "OOO"),
    not_an_entry: (Kind.LEDGER, False, "NNN"),
    record: (Kind.LEFTOVER, True, "OOO"),
    half_deleted: (Kind.LEFTOVER, True, "OOO"),
}
SWEEPS = {"O": Sweep.OWN, "A": Sweep.ALL, "N": Sweep.NEVER}


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_each_kind_is_found_and_only_what_may_be_is_deleted(
    make: Callable[[Store], Path], store: Store
) -> None:
    put_ours(store, "m:x", b"weights")
    clean = tree(store.root)
    path = make(store)
    dirty, outside = tree(store.root), tree(store.root.parent / "outside")
    kind, ours, sweeps = FOUND[make]
    for after, sweep in zip((0, LATER, MUCH_LATER), sweeps, strict=True):
        found = one(store, after)
        assert (found.path, found.kind, found.ours) == (path, kind, ours)
        assert (after, found.sweep) == (after, SWEEPS[sweep])
        assert found.why
    assert tree(store.root) == dirty, "finding changed something"
    for after, sweep in zip((0, LATER, MUCH_LATER), sweeps, strict=True):
        for everything in (False, True):
            goes = sweep == "O" or (sweep == "A" and everything)
            deleted = delete(store, everything=everything, after=after)
            assert deleted == ({str(path.relative_to(store.root))} if goes else set())
            left = tree(store.root)
            if goes:
                assert {key for key in left if left[key] != "empty folder"} == {
                    key for key in clean if clean[key] != "empty folder"
                }
                return
            assert left == dirty
    assert tree(store.root.parent / "outside") == outside


def test_a_store_without_garbage_has_none(store: Store) -> None:
    assert find(store).findings == ()
    put_ours(store, "m:x", b"weights")
    assert find(store).findings == ()
    assert delete_garbage(store, (), claimed_bytes, time.time()) == ()


@pytest.mark.parametrize("part", [".dsollama", "blobs"])
def test_nothing_behind_a_link_is_touched(part: str, store: Store) -> None:
    for make in (our_orphan, foreign_orphan, resumable, temporary, modelfile, entry, record):
        make(store)
    outside = store.root.parent / "outside"
    (store.root / part).rename(outside)
    (store.root / part).symlink_to(outside)
    before = tree(outside)
    assert not [each for each in delete(store, everything=True, after=MUCH_LATER) if part in each]
    after = tree(outside)
    after.pop("lock", None)  # it has to be where every dsollama takes it
    assert after == before


def test_bytes_are_those_of_the_disk(store: Store) -> None:
    path = foreign_orphan(store)
    path.write_bytes(b"x" * 100_000)
    os.truncate(path, 10**12)  # a hole needs no disk
    assert one(store).bytes == path.stat().st_blocks * 512
    assert 100_000 <= one(store).bytes < 10**6
    assert freed([one(store), one(store)]) == 2 * one(store).bytes
    path.with_name("notes").hardlink_to(path)
    assert {each.bytes for each in find(store).findings} == {0}


def test_an_interrupted_install_says_what_it_has_and_since_when(store: Store) -> None:
    staging = stopped(store, claimed=12_300_000)
    found = one(store)
    assert found.in_place == 12_300_000
    assert "12.3 MB in place" in found.why
    assert time.time() - found.touched < 60
    assert found.bytes == sum(path.stat().st_blocks * 512 for path in staging.iterdir())


def test_an_install_at_work_is_never_touched(store: Store) -> None:
    staging = stopped(store)
    with FileLock(staging / "lock"):
        before = tree(store.root)
        found = one(store, MUCH_LATER)
        assert (found.sweep, found.why) == (Sweep.NEVER, "an install is at work on it")
        assert delete(store, everything=True, after=MUCH_LATER) == set()
        assert tree(store.root) == before
    assert delete(store, everything=True) == {".dsollama/staging/k"}


def test_an_install_that_began_after_the_report_is_not_touched(store: Store) -> None:
    staging = stopped(store)
    chosen = find(store).swept(everything=True)
    with FileLock(staging / "lock"):
        before = tree(store.root)
        assert delete_garbage(store, chosen, claimed_bytes, time.time() + LATER) == ()
        assert tree(store.root) == before


def test_an_install_that_went_on_since_the_report_is_judged_again(store: Store) -> None:
    stopped(store, claimed=0)
    chosen = find(store).swept(everything=False)
    stopped(store, claimed=3)
    assert delete_garbage(store, chosen, claimed_bytes, time.time() + LATER) == ()


def test_what_is_uploaded_or_waits_for_it_is_kept(store: Store) -> None:
    """By the API a merged file is a blob that no manifest names, while it is uploaded."""
    blob = our_orphan(store)
    assert one(store, MUCH_LATER).sweep is Sweep.OWN
    with uploading(store) as alone, uploading(store) as other:
        found = find(store, MUCH_LATER)
        assert "may be uploading it" in one(store, MUCH_LATER).why
        assert [each.sweep for each in found.findings] == [Sweep.NEVER]
        assert delete(store, everything=True, after=MUCH_LATER) == set()
        assert not alone()
        assert not other()
    with uploading(store) as alone:
        assert alone()
        assert uploads(store) is Uploads.AT_WORK
    assert delete(store, everything=False, after=MUCH_LATER) == set()
    assert blob.exists()
    assert delete(store, everything=True) == {str(blob.relative_to(store.root))}


def test_what_was_not_reported_is_not_deleted(store: Store) -> None:
    our_orphan(store)
    chosen = find(store).swept(everything=True)
    put_blob(store, b"another")
    delete_garbage(store, chosen, claimed_bytes, time.time() + LATER)
    assert blobs(store) == {digest_of(b"another")}


def test_what_is_named_since_the_report_is_not_deleted(store: Store) -> None:
    put_blob(store, b"weights")
    chosen = find(store).swept(everything=True)
    put_model(store, "a:x", b"weights")
    assert delete_garbage(store, chosen, claimed_bytes, time.time() + LATER) == ()
    assert digest_of(b"weights") in blobs(store)


def test_while_ollama_pulls_no_foreign_blob_goes(store: Store, tmp_path: Path) -> None:
    """A pull of several blobs has its first ones in place long before its manifest."""
    put_blob(store, b"the first, long ago")
    our_orphan(store)
    done = part_of_a_partial(store)
    os.utime(done, (1, 1))
    time.sleep(1.1)
    put(store, f"blobs/sha256-{HEX}-partial", b"at work")
    now = os.stat(done).st_ctime + GRACE_SECONDS + 0.5  # noqa: PTH116 - this very file's time
    found = find_garbage(store, claimed_bytes, now)
    assert [each.sweep for each in found.findings if not each.ours] == [Sweep.NEVER] * 3
    delete_garbage(store, found.swept(everything=True), claimed_bytes, now)
    assert len(list((store.root / "blobs").iterdir())) == 3
    assert len(delete(store, everything=True, after=2 * GRACE_SECONDS)) == 3


def test_a_copied_blob_with_an_old_date_is_young(store: Store) -> None:
    os.utime(put_blob(store, b"copied with its date"), (1, 1))
    assert one(store, after=0).sweep is Sweep.NEVER


def test_small_layers_of_an_interrupted_removal_are_ours(store: Store) -> None:
    put_blob(store, b"small")
    put_blob(store, b"foreign")
    write_removal(store, ["a:x"], [digest_of(b"small")])
    delete(store)
    assert blobs(store) == {digest_of(b"foreign")}


def test_an_orphan_goes_with_its_ledger_entry(store: Store) -> None:
    our_orphan(store)
    assert "dsollama installed it from o/r UD-Q2_K_XL" in one(store).why
    delete(store)
    assert list(store.ledger.entries()) == []


def test_while_a_manifest_cannot_be_read_blobs_stay_and_the_rest_goes(store: Store) -> None:
    our_orphan(store)
    foreign_orphan(store)
    kept = record(store)
    put(store, "manifests/registry.ollama.ai/library/broken/latest", b"{")
    partial(store)
    temporary(store)
    found = find(store)
    assert [each.shown for each in found.unreadable] == ["broken:latest"]
    assert delete(store, everything=True) == {
        f"blobs/sha256-{HEX}-partial", ".dsollama/tmp/123-abcd",
    }  # fmt: skip
    assert blobs(store) == {digest_of(b"ours"), digest_of(b"foreign")}
    assert kept.exists()


def test_a_forged_record_or_ledger_frees_nothing_that_is_named(store: Store) -> None:
    put_model(store, "a:x", b"weights")
    store.ledger.write(digest_of(b"weights"), ledger_entry(b"weights"))
    write_removal(store, ["a:x"], [digest_of(b"weights")])
    put(store, ".dsollama/removing/forged.json", b'{"names": [], "digests": ["sha256:../../x"]}')
    before = blobs(store)
    delete(store, everything=True)
    assert blobs(store) == before


def test_while_another_dsollama_changes_the_store_nothing_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.1)
    our_orphan(store)
    before = tree(store.root)
    chosen = find(store).swept(everything=False)
    with FileLock(store.own / "lock"), pytest.raises(StoreBusyError):
        delete_garbage(store, chosen, claimed_bytes, time.time())
    assert tree(store.root) == before


def test_names_that_no_terminal_can_show_are_told_as_json(store: Store) -> None:
    folder = store.root / "blobs"
    folder.mkdir(parents=True)
    for name in (b"\xff\xfe", b"a\nb\x1b[31m"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    told = json.dumps(find(store).to_json(), ensure_ascii=False)
    told.encode()
    assert "\\\\xff\\\\xfe" in told
    assert "\x1b" not in told
    assert "a\\\\x0ab" in told
