"""A file system without locks: it is told, nothing is changed, and what only reads works."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from handmade import tree
from lockless import without_locks

from conftest import Bench

NAME = "deepseek-v3.1-terminus:UD-Q2_K_XL"
GUARD_SECONDS = 120.0
ERRORS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
EACH = pytest.mark.parametrize("error", ERRORS, ids=[errno.errorcode[each] for each in ERRORS])

READING = (
    ["list"], ["show", NAME], ["modelfile", NAME], ["verify"], ["gc"],
    ["remove", NAME, "--dry-run"], ["install", "UD-Q2_K_XL", "--dry-run"],
)  # fmt: skip
CHANGING = (
    ["install", "UD-Q2_K_XL", "--yes", "--name", "other:x"],
    ["remove", NAME, "--yes"],
    ["gc", "--delete", "--all", "--yes"],
    ["verify", "--repair"],
)


def run(bench: Bench, error: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*without_locks(error), sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )


def orphan(bench: Bench) -> Path:
    """Leave something that gc would delete."""
    path = bench.store / ".dsollama" / "modelfiles" / "registry.ollama.ai" / "library" / "a" / "x"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def damage(bench: Bench) -> None:
    blob = max((bench.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"damaged")


@EACH
def test_what_only_reads_works(bench: Bench, error: int) -> None:
    bench.install()
    for arguments in READING:
        done = run(bench, error, *arguments)
        assert (done.returncode, done.stderr.count("Error: ")) == (0, 0), done.stderr


@EACH
def test_what_would_change_the_store_says_why_it_does_not(bench: Bench, error: int) -> None:
    bench.install()
    orphan(bench)
    for arguments in CHANGING:
        if "--repair" in arguments:
            damage(bench)
        before = tree(bench.store)
        done = run(bench, error, *arguments)
        assert done.returncode == 5, done.stderr
        assert done.stderr.count("Error: The file system of ") == 1, done.stderr
        assert " has no locks (" in done.stderr
        assert "\nHint: " in done.stderr
        assert tree(bench.store) == before, arguments


def test_no_byte_is_downloaded_in_vain(bench: Bench) -> None:
    done = run(bench, errno.ENOSYS, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 5, done.stderr
    assert bench.files() == {}
    assert bench.hub.bytes_sent < 4 * 2**20  # the headers


def test_gc_does_not_say_that_an_install_is_at_work(bench: Bench) -> None:
    folder = bench.store / ".dsollama" / "staging" / "k"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "journal.json").write_bytes(b'{"done":{"0":5},"boot":"","version":2}')
    done = run(bench, errno.ENOLCK, "gc")
    assert "may be at work on it: the file system has no locks to tell" in done.stdout
