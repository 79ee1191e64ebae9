"""Whose the store is: real users and groups where the system decides, made-up facts elsewhere."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError
from dsollama.events import Event, ShardVerified
from dsollama.manifest.names import parse_name
from dsollama.store.ownership import (
    Facts,
    Folder,
    User,
    diagnose,
    hand_over,
    look,
    permits,
    service_notes,
    sudo_command,
)
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub

from conftest import TERMINUS, Bench, make_repository, public_folder

SERVICE = (4321, 4322)
"""A user and a group that no system has; the kernel asks for no more than numbers."""

ALICE = User("alice", 1000, frozenset({1000}))
OLLAMA = User("ollama", 998, frozenset({998}))
ROOT = User("root", 0, frozenset({0}))
TOP = Folder(Path("/"), 0, 0, 0o755)
PLACE = Path("/usr/share/ollama/.ollama/models")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def facts(*chain: Folder, refused: Folder | None = None, **changes: object) -> Facts:
    values: dict[str, object] = {
        "store": PLACE,
        "chain": (TOP, *chain),
        "refused": refused,
        "read_only": False,
        "me": ALICE,
        "service": None,
        "names": ({0: "root", 998: "ollama"}, {0: "root", 998: "ollama"}),
    }
    return Facts(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's are root's alone."""
    with public_folder() as folder:
        yield folder


def as_user(uid: int, gid: int, work: Callable[[], object]) -> str:
    """Do the work as another user, in a process of its own; return how it ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
            work()
            os.write(write, b"done")
        except StoreNotWritableError as error:
            os.write(write, f"{error}\n{error.hint}".encode())
        except BaseException as error:  # noqa: BLE001
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(p.lstat().st_uid, p.lstat().st_gid) for p in (folder, *folder.rglob("*"))}


@as_root
@pytest.mark.parametrize("exists", [True, False], ids=["the store", "its parent"])
def test_root_installs_for_the_owner_of_the_store(
    exists: bool, shards: Callable[..., list[Path]], open_folder: Path
) -> None:
    store = open_folder / "ollama" / "models"
    (store if exists else store.parent).mkdir(parents=True)
    for folder in (store.parent, store) if exists else (store.parent,):
        os.chown(folder, *SERVICE)
    before = os.umask(0o077)  # as a careful sudo sets it
    try:
        with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
            bench = Bench(hub, hub.repositories[TERMINUS], store, [])
            seen: set[tuple[int, int]] = set()

            def listener(event: Event) -> None:
                if isinstance(event, ShardVerified):
                    seen.update(owners(store))  # while journal, lock and staging are there

            from dsollama.install.to_store import execute

            done = execute(bench.plan(), listener, connections=2)
    finally:
        os.umask(before)
    assert seen == owners(store) == {SERVICE}
    modes = {
        path.relative_to(store): stat.S_IMODE(path.stat().st_mode) for path in store.rglob("*")
    }
    wrong = {
        str(path): oct(mode)
        for path, mode in modes.items()
        if mode != (0o755 if (store / path).is_dir() else 0o600 if path.name == "lock" else 0o644)
    }
    assert not wrong
    own = Store(store)
    removed = as_user(*SERVICE, lambda: own.manifest_path(parse_name(done.names[0])).unlink())
    assert removed == "done"


@as_root
def test_the_service_can_use_what_root_has_locked(open_folder: Path) -> None:
    os.chown(open_folder, *SERVICE)

    def change() -> None:
        with Store(open_folder).changing():
            pass

    change()
    assert as_user(*SERVICE, change) == "done"


@as_root
def test_root_follows_no_link_that_the_owner_has_laid(open_folder: Path) -> None:
    victim = open_folder / "victim"
    victim.write_text("root's")
    store = open_folder / "models"
    (store / ".dsollama").mkdir(parents=True)
    (store / ".dsollama" / "lock").symlink_to(victim)
    os.chown(store, *SERVICE)
    os.chown(store / ".dsollama", *SERVICE)
    with pytest.raises(StoreNotWritableError), Store(store).changing():
        pass
    assert victim.read_text() == "root's"
    assert victim.stat().st_uid == 0


@as_root
def test_a_file_with_a_second_name_is_not_given_away(open_folder: Path) -> None:
    folder = open_folder / "theirs"
    folder.mkdir()
    os.chown(folder, *SERVICE)
    file = open_folder / "root's"
    file.touch()
    os.link(file, folder / "linked")
    with file.open() as handle:
        hand_over(handle.fileno(), folder)
    assert file.stat().st_uid == 0
    (folder / "linked").unlink()
    with file.open() as handle:
        hand_over(handle.fileno(), folder)
    assert (file.stat().st_uid, file.stat().st_gid) == SERVICE


@as_root
def test_another_user_is_told_whose_the_store_is_and_every_way_out(open_folder: Path) -> None:
    store = open_folder / "models"
    store.mkdir()
    os.chown(store, *SERVICE)
    store.chmod(0o775)
    told = as_user(65534, 65534, Store(store).require_writable)
    assert f"{store} is not writable by nobody (uid 65534)" in told
    assert "it belongs to 4321:4322, mode 0775" in told
    assert "will be 4321's" in told
    assert f"--store {store}" in told
    assert "usermod -aG 4322 nobody" in told
    assert as_user(65534, SERVICE[1], Store(store).require_writable) == "done"
    store.chmod(0o755)
    assert "usermod" not in as_user(65534, 65534, Store(store).require_writable)


@as_root
def test_a_parent_that_may_not_be_entered_is_named(open_folder: Path) -> None:
    (open_folder / "models").mkdir(mode=0o777)
    open_folder.chmod(0o700)
    told = as_user(65534, 65534, Store(open_folder / "models").require_writable)
    assert f"{open_folder} cannot be entered by nobody" in told
    assert "will be its owner's" in told


@as_root
def test_what_the_system_knows_is_looked_up(open_folder: Path) -> None:
    os.chown(open_folder, 65534, 0)
    found = look(open_folder / "models", [])
    assert found.chain[-1] == Folder(open_folder, 65534, 0, 0o755)
    assert (found.me.name, found.refused) == ("root", None)
    assert found.names[0][65534] == "nobody"


CLOSED = Folder(PLACE, 998, 998, 0o755)


def test_a_writable_store_has_no_diagnosis() -> None:
    assert diagnose(facts(CLOSED), "sudo x") is None


@pytest.mark.parametrize(
    ("changes", "sentence", "hint"),
    [
        ({}, "is not writable by alice (uid 1000): it belongs to ollama:ollama, mode 0755", "C"),
        ({"read_only": True}, "mounted read-only", "Mount it"),
        ({"me": ROOT}, "even by root", "Try as ollama"),
        (
            {"refused": dataclasses.replace(CLOSED, is_folder=False)},
            "it is no folder",
            "Move it away",
        ),
        ({"refused": dataclasses.replace(CLOSED, mode=0o700)}, "cannot be entered by alice", "C"),
    ],
)
def test_each_reason_has_its_sentence_and_its_hint(
    changes: dict[str, object], sentence: str, hint: str
) -> None:
    found = diagnose(facts(CLOSED, **({"refused": CLOSED} | changes)), "C")  # type: ignore[arg-type]
    assert found is not None
    assert sentence in found[0]
    assert hint in found[1]


def test_only_a_group_that_may_write_and_is_not_ours_is_offered() -> None:
    def offered(mode: int, gids: set[int]) -> bool:
        at = dataclasses.replace(CLOSED, mode=mode)
        me = dataclasses.replace(ALICE, gids=frozenset(gids))
        found = diagnose(facts(at, refused=at, me=me), "C")
        assert found is not None
        return "usermod -aG ollama alice" in found[1]

    assert offered(0o775, {1000})
    assert not offered(0o775, {1000, 998})
    assert not offered(0o755, {1000})
    assert not offered(0o765, {1000})


@pytest.mark.parametrize(
    ("user", "mode", "enters", "writes"),
    [
        (OLLAMA, 0o700, True, True),
        (OLLAMA, 0o077, False, False),
        (User("b", 5, frozenset({998})), 0o750, True, False),
        (User("b", 5, frozenset({998})), 0o707, False, False),
        (ALICE, 0o751, True, False),
        (ALICE, 0o770, False, False),
        (ROOT, 0o000, True, True),
    ],
)
def test_mode_bits_are_read_as_the_kernel_reads_them(
    user: User, mode: int, enters: bool, writes: bool
) -> None:
    folder = dataclasses.replace(CLOSED, mode=mode)
    assert (permits(folder, user, 1), permits(folder, user, 2)) == (enters, writes)


def test_a_service_that_cannot_reach_the_store_is_told() -> None:
    home = Folder(Path("/home/alice"), 1000, 1000, 0o700)
    store = Folder(Path("/home/alice/models"), 998, 998, 0o755)
    notes = service_notes(facts(home, store, store=store.path, me=ROOT, service=OLLAMA))
    assert len(notes) == 2
    assert "cannot enter /home/alice (mode 0700)" in notes[0]
    assert "ProtectHome=" in notes[1]
    opened = dataclasses.replace(home, mode=0o711)
    notes = service_notes(facts(opened, store, store=store.path, me=ROOT, service=OLLAMA))
    assert [("ProtectHome" in note) for note in notes] == [True]
    assert service_notes(facts(home, store, store=store.path)) == ()
    assert service_notes(facts(CLOSED, me=ROOT, service=OLLAMA)) == ()


def test_a_store_that_root_keeps_is_told() -> None:
    at = Folder(Path("/data"), 0, 0, 0o755)
    notes = service_notes(facts(at, store=Path("/data/models"), me=ROOT, service=OLLAMA))
    assert len(notes) == 1
    assert "sudo chown ollama: /data" in notes[0]


KEEP = "sudo --preserve-env=HF_TOKEN,HF_ENDPOINT,HF_HUB_DISABLE_IMPLICIT_TOKEN"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["/home/a b/bin/dsollama", "install", "Q4_K_M"],
            f"{KEEP} '/home/a b/bin/dsollama' install Q4_K_M --store /s",
        ),
        (["/x/dsollama", "gc", "--store=/s"], "sudo /x/dsollama gc --store=/s"),
        (["/x/dsollama", "gc", "--store", "/s"], "sudo /x/dsollama gc --store /s"),
        (["/usr/bin/pytest", "-q"], f"{KEEP} dsollama install ... --store /s"),
        ([], "sudo dsollama --store /s"),
    ],
)
def test_the_sudo_line_can_be_pasted(argv: list[str], line: str) -> None:
    assert sudo_command(argv, Path("/s")) == line
