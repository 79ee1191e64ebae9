"""Small files of the store: read whole only where they are regular and small."""

import errno
import os
from pathlib import Path

import pytest

from dsollama.store.files import read_small
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
