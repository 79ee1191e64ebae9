"""Memory, threads and open files: with few of them it works, or one sentence names the limit."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dsollama import limits
from dsollama.errors import LimitError
from dsollama.transfer.progress import Progress
from dsollama.transfer.region import Segment

from conftest import Bench

INSTALL = ("install", "UD-Q2_K_XL", "--yes")


def _limited(
    limit: str, bench: Bench, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["prlimit", limit, sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("mebibytes", [512, 384])
def test_an_install_with_few_addresses_ends_right(mebibytes: int, bench: Bench) -> None:
    done = _limited(f"--as={mebibytes * 2**20}", bench, *INSTALL, DSOLLAMA_CONNECTIONS="16")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mebibytes", [200, 150, 100, 60, 40])
@pytest.mark.parametrize("json_wanted", [False, True])
def test_too_few_addresses_are_told_once(mebibytes: int, json_wanted: bool, bench: Bench) -> None:
    arguments = (*INSTALL, *(["--json"] if json_wanted else []))
    done = _limited(f"--as={mebibytes * 2**20}", bench, *arguments)
    if done.returncode == 0:
        assert mebibytes == 200
        return
    assert mebibytes >= 150 or not bench.hub.requests
    assert done.returncode == 8, done.stderr
    assert done.stderr.count("Error: ") == 1
    assert "`ulimit -v` is" in done.stderr or "(`ulimit -v`)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not json_wanted or json.loads(done.stdout.splitlines()[-1])["code"] == "limit"
    assert bench.files() == {}


@pytest.mark.parametrize("files", ["32:32", "8:64"])
def test_few_files_are_enough_for_fewer_connections(files: str, bench: Bench) -> None:
    done = _limited(f"--nofile={files}", bench, *INSTALL, DSOLLAMA_CONNECTIONS="32")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("files", [20, 12, 8])
@pytest.mark.parametrize("command", [INSTALL, ("list",), ("gc", "--delete", "--all", "--yes")])
def test_too_few_files_are_told_before_anything_is_done(
    files: int, command: tuple[str, ...], bench: Bench
) -> None:
    done = _limited(f"--nofile={files}:{files}", bench, *command)
    assert done.returncode == 8, done.stderr
    assert f"may have {files} files open at once (`ulimit -n`)" in done.stderr
    assert bench.hub.requests == []
    assert not bench.store.exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "x"),
        OSError(errno.EMFILE, "x"),
        OSError(errno.ENFILE, "x"),
        BlockingIOError(errno.EAGAIN, "x"),
        RuntimeError("can't start new thread"),
        ImportError("x.so: failed to map segment from shared object: Cannot allocate memory"),
    ],
    ids=repr,
)
def test_a_limit_is_known_through_what_clients_make_of_it(error: Exception) -> None:
    wrapped = ValueError("what a client says")
    wrapped.__cause__ = ConnectionError(error)
    for each in (error, wrapped):
        found = limits.limit_error(each)
        assert isinstance(found, LimitError)
        assert found.hint


def test_an_error_of_c_code_is_a_limit_only_under_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython says SystemError where its C code forgot to say MemoryError. The limit is mocked."""
    error = SystemError("error return without exception set")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (2**29, 2**29))
    assert isinstance(limits.limit_error(error), LimitError)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY,) * 2)
    assert limits.limit_error(error) is None


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "x"), RuntimeError("x"), ImportError("x"), ValueError()]
)
def test_another_error_is_no_limit(error: Exception) -> None:
    assert limits.limit_error(error) is None


def test_a_thread_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mocked: the system's own limit would hold for the test program as well."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LimitError, match="starts no more threads"):
        limits.start_thread(print)


def test_what_a_connection_gives_back_is_the_next_to_be_fetched(tmp_path: Path) -> None:
    progress = Progress([Segment(0, 0, 10), Segment(0, 10, 20)], tmp_path, lambda: None)
    first = progress.next_segment(lambda _segment: True)
    assert first == 0
    progress.give_back(0)
    assert [progress.next_segment(lambda _segment: True) for _ in range(3)] == [0, 1, None]


def test_there_is_one_connection_at_least() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits.most_connections(10**9) < max(soft, 2)
    assert limits.most_connections(1) == 1


def test_a_stop_during_the_imports_is_told(tmp_path: Path) -> None:
    """The first module of the program that is slow to be imported is stopped by SIGINT."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "list"],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "Error: Stopped.\n")
