"""Small files of the store: read whole only where they are regular and small."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError
from dsollama.events import Event, ShardVerified
from dsollama.install.to_store import execute
from dsollama.store.files import read_small, write_atomically
from dsollama.store.ledger import Ledger
from dsollama.store.locks import file_lock

from conftest import Bench, public_folder

ZERO = "sha256:" + "0" * 64


def test_a_file_up_to_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read_small(path, 3) == b"abc"
    with pytest.raises(OSError, match="too large") as caught:
        read_small(path, 2)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "loop", "absent"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    ledger = Ledger(tmp_path, tmp_path / "tmp")
    path = ledger.path(ZERO)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(OSError, match=r"regular|directory|links|No such"):
        read_small(path, 10)
    assert ledger.read(ZERO) is None
    assert list(ledger.entries()) == []


def test_a_lock_empties_nothing_that_was_laid_in_its_place(tmp_path: Path) -> None:
    """A hard link is opened like any file; filelock before 4.2.1 cut it to no bytes."""
    foreign, place = tmp_path / "foreign", tmp_path / "lock"
    foreign.write_text("something to lose")
    place.hardlink_to(foreign)
    with file_lock(place):
        assert foreign.read_text() == "something to lose"
    assert foreign.read_text() == "something to lose"


def test_a_lock_follows_no_link_that_is_laid_between_its_two_looks(tmp_path: Path) -> None:
    """Its file is made by us and opened by filelock; before 3.20.1 that followed a link."""
    foreign, place = tmp_path / "foreign", tmp_path / "lock"
    lock = file_lock(place)
    place.unlink()
    place.symlink_to(foreign)
    with pytest.raises(OSError, match="links"), lock:
        pass
    assert not foreign.exists()
    with pytest.raises(StoreNotWritableError):
        file_lock(place)


def test_a_lock_is_its_owners_alone_and_one_made_for_everybody_becomes_so(tmp_path: Path) -> None:
    """Whoever can open the file, for reading too, could hold the lock for ever."""
    place = tmp_path / "lock"
    place.touch()
    place.chmod(0o644)  # as dsollama made it before
    with file_lock(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.unlink()
    with file_lock(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_the_locks_of_an_install_are_its_owners_alone(bench: Bench) -> None:
    seen: set[tuple[str, int]] = set()

    def listener(event: Event) -> None:
        if isinstance(event, ShardVerified):
            locks = (bench.store / ".dsollama").rglob("lock")
            seen.update((lock.parent.name, stat.S_IMODE(lock.stat().st_mode)) for lock in locks)

    key = bench.plan().key
    execute(bench.plan(), listener, connections=2)
    lock = bench.store / ".dsollama" / "lock"
    assert seen == {(key, 0o600)}
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_no_other_user_can_hold_a_lock() -> None:
    with public_folder() as folder:
        lock = file_lock(folder / "lock")
        held = subprocess.run(
            ["flock", "--nonblock", "--shared", lock.lock_file, "true"],
            user=4321,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    assert held.returncode != 0
    assert "Permission denied" in held.stderr


def test_a_pipe_in_place_of_a_new_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "new")
    with pytest.raises(StoreNotWritableError, match="not a regular file"):
        write_atomically(tmp_path / "file", b"x", tmp_path / "new")
