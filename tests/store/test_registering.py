"""A registration gives all names or none, whatever stops it, and the next command finishes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dsollama.errors import NotEnoughDiskError, NotInstalledError, StoreError, StoreNotWritableError
from dsollama.manifest.names import parse_name
from dsollama.store import registering
from dsollama.store.garbage import find_garbage
from dsollama.store.registering import (
    RECORD,
    Registration,
    finish,
    give_names,
    needed,
    pending,
    plan_registration,
    written_down,
)
from dsollama.store.remove import plan_removal
from dsollama.store.store import Store
from handmade import digest_of, ledger_entry, manifest, put, put_blob, put_model, put_ours, tree

LIBRARY = "manifests/registry.ollama.ai/library"
OLD, NEW = b"the old weights", b"the new weights"
NAMES = ("a:q2", "a:q2-thinking")
WEIGHTS = "application/vnd.ollama.image.model"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two names with old weights, and new ones that have none."""
    store = Store(tmp_path / "models")
    for name in NAMES:
        put_ours(store, name, OLD, name.encode())
    put_blob(store, NEW)
    store.ledger.write(digest_of(NEW), ledger_entry(NEW))
    return store


def registration(store: Store, *names: str) -> Registration:
    data = manifest(b"config", (WEIGHTS, NEW))
    return plan_registration(
        store,
        digest_of(NEW),
        len(NEW),
        {digest_of(b"config"): b"config"},
        {parse_name(name): (data, f"FROM new {name}\n") for name in names or NAMES},
    )


def give(store: Store, *names: str) -> None:
    with store.changing():
        planned = registration(store, *names)
        with written_down(store, planned):
            give_names(store, planned)


class Killed(BaseException):
    """What comes behind it does not happen, as after kill -9."""


@contextmanager
def killed_before(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Let every change of a file after `number` of them fail, as where no program runs any more."""
    done: list[Path] = []
    real_replace, real_unlink = Path.replace, Path.unlink

    def may(path: Path) -> None:
        if len(done) >= number:
            raise Killed
        done.append(path)

    def replace(self: Path, target: Path) -> Path:
        may(target)
        return real_replace(self, target)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.exists():
            may(self)
        real_unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", unlink)
        yield done


def weights_of(store: Store) -> list[str]:
    return [store.model(parse_name(name)).layers[0].digest for name in NAMES]


def next_command(store: Store) -> None:
    with store.changing():
        pass


def test_names_get_their_weights_modelfiles_and_ledger(store: Store) -> None:
    give(store)
    assert weights_of(store) == [digest_of(NEW)] * 2
    for name in NAMES:
        assert store.modelfile_path(parse_name(name)).read_text() == f"FROM new {name}\n"
    old, new = (store.ledger.read(digest_of(each)) for each in (OLD, NEW))
    assert old is not None
    assert new is not None
    assert (old.names, new.names) == ((), NAMES)
    assert not (store.own / RECORD).exists()


def test_killed_anywhere_the_next_command_leaves_all_old_or_all_new(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = set()
    for number in range(100):
        before = tree(store.root)
        with killed_before(number, monkeypatch) as done:
            try:
                give(store)
            except Killed:
                ended = False
            else:
                ended = True
        next_command(store)
        store.clear_temporary()
        weights = weights_of(store)
        assert len(set(weights)) == 1, (number, done)
        seen.add(weights[0])
        assert not (store.own / RECORD).exists()
        if weights[0] == digest_of(OLD):
            assert tree(store.root) == before
        else:
            ledger = store.ledger.read(digest_of(NEW))
            assert ledger is not None
            assert ledger.names == NAMES
            modelfile = store.modelfile_path(parse_name(NAMES[1])).read_text()
            assert modelfile == f"FROM new {NAMES[1]}\n"
            for name in NAMES:
                put_ours(store, name, OLD, name.encode())
            store.ledger.write(digest_of(NEW), ledger_entry(NEW))
            store.ledger.write(digest_of(OLD), ledger_entry(OLD, *NAMES))
        if ended:
            break
    assert ended
    assert number >= 7  # the record, two Modelfiles, two manifests, the ledger, the record's end
    assert seen == {digest_of(OLD), digest_of(NEW)}


def halfway(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a registration between its two manifests."""
    with killed_before(4, monkeypatch) as done, pytest.raises(Killed):
        give(store)
    assert done[-1] == store.manifest_path(parse_name(NAMES[0]))
    assert weights_of(store) == [digest_of(NEW), digest_of(OLD)]
    assert pending(store) is not None


def test_without_its_weights_it_is_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(store.root)
    halfway(store, monkeypatch)
    store.blob_path(digest_of(NEW)).unlink()
    next_command(store)
    store.clear_temporary()
    put_blob(store, NEW)
    assert tree(store.root) == before


def test_what_somebody_has_changed_since_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    halfway(store, monkeypatch)
    mine = put_model(store, NAMES[1], b"mine").read_bytes()
    next_command(store)
    assert store.manifest_path(parse_name(NAMES[1])).read_bytes() == mine
    assert weights_of(store) == [digest_of(NEW), digest_of(b"mine")]
    ledger = store.ledger.read(digest_of(NEW))
    assert ledger is not None
    assert ledger.names == NAMES[:1]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let no file be written while the disk is said to be full."""
    real, full = registering.write_atomically, [False]

    def write(path: Path, data: bytes, temporary: Path) -> None:
        if full[0]:
            raise NotEnoughDiskError(f"The disk of {path} is full.")
        real(path, data, temporary)

    def set_full(now: bool) -> None:
        full[0] = now

    monkeypatch.setattr(registering, "write_atomically", write)
    return set_full


def test_while_it_is_not_finished_nothing_that_it_needs_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[bool], None]
) -> None:
    halfway(store, monkeypatch)
    full_disk(True)
    next_command(store)  # which may be the gc that makes room
    assert needed(store) >= {digest_of(OLD), digest_of(NEW), digest_of(b"config")}
    plan = plan_removal(store, [parse_name(each) for each in NAMES])
    freed = {each.digest for each in plan.blobs}
    assert freed.isdisjoint(needed(store))
    assert any("registration that was killed" in each.why for each in plan.kept)
    found = find_garbage(store, lambda _path: 0, 0.0).findings
    assert store.blob_path(digest_of(NEW)) not in {each.path for each in found}


def test_where_an_earlier_one_cannot_be_finished_none_is_begun(
    store: Store, monkeypatch: pytest.MonkeyPatch, full_disk: Callable[[bool], None]
) -> None:
    halfway(store, monkeypatch)
    record = (store.own / RECORD).read_bytes()
    full_disk(True)
    with pytest.raises(NotEnoughDiskError):
        give(store, "other")
    assert (store.own / RECORD).read_bytes() == record
    full_disk(False)
    next_command(store)
    assert weights_of(store) == [digest_of(NEW)] * 2


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff" * 1000, b'{"weights": "x", "size": 1, "small": {}, "names": {}}']
)
def test_a_damaged_record_is_forgotten(data: bytes, store: Store) -> None:
    before = tree(store.root)
    put(store, f".dsollama/{RECORD}", data)
    next_command(store)
    assert tree(store.root) == before


def test_a_forged_record_writes_only_where_names_are(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    named = registration(store).names[NAMES[0]]
    names = {"../../../../outside": named, "good:name": named}
    forged = Registration(weights=digest_of(NEW), size=len(NEW), small={}, names=names)
    put(store, f".dsollama/{RECORD}", msgspec.json.encode(forged))
    next_command(store)
    assert tree(store.root) == before
    assert not list(tmp_path.rglob("outside"))


def in_the_way_a_file(store: Store) -> None:
    put(store, f"{LIBRARY}/last", b"a file where a folder belongs")


def in_the_way_a_folder(store: Store) -> None:
    (store.root / LIBRARY / "last/latest").mkdir(parents=True)


def in_the_way_something_large(store: Store) -> None:
    put(store, f"{LIBRARY}/last/latest", b" " * 2**23)


# What was never written cannot be taken back either: no NotADirectoryError may come of that.
@pytest.mark.parametrize(
    "obstacle", [in_the_way_a_file, in_the_way_a_folder, in_the_way_something_large]
)
def test_a_failure_leaves_every_name_as_it_was(
    store: Store, obstacle: Callable[[Store], None]
) -> None:
    obstacle(store)
    before = tree(store.root)
    with pytest.raises((StoreError, OSError)) as caught:
        give(store, "new", NAMES[0], "last", "never")
    left = {name: data for name, data in tree(store.root).items() if data != "empty folder"}
    assert left == {name: data for name, data in before.items() if data != "empty folder"}
    assert caught.type is StoreNotWritableError


# Ollama allows hosts of 350 letters; the name of a folder has 255 at most.
def test_a_name_too_long_for_the_disk_ends_in_an_error_of_ours(store: Store) -> None:
    name = "h" * 300 + "/n/m"
    with pytest.raises(StoreError):
        give(store, name)
    with pytest.raises(NotInstalledError):
        store.model(parse_name(name))


def test_finishing_where_nothing_is_to_finish_changes_nothing(store: Store) -> None:
    before = tree(store.root)
    finish(store)
    assert tree(store.root) == before


def test_a_record_with_other_bytes_than_its_digests_is_forgotten(store: Store) -> None:
    before = tree(store.root)
    forged = registration(store)
    small = {digest_of(b"config"): b"forged"}
    forged = Registration(weights=forged.weights, size=forged.size, small=small, names=forged.names)
    put(store, f".dsollama/{RECORD}", msgspec.json.encode(forged))
    next_command(store)
    assert tree(store.root) == before
