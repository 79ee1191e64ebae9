"""Small files of the store: read whole only where they are regular and small."""

import errno
import os
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError
from dsollama.store.files import file_lock, read_small
from dsollama.store.ledger import Ledger

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
