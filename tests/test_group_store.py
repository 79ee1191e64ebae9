"""A store that users and Ollama's service share by a group: each can go on with what others made.

As root, with made-up users: the kernel asks for no more than numbers.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ollama
import pytest

from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.testing.loopback_hub import Fault, LoopbackHub
from faults.scene import download_3

from conftest import TERMINUS, Bench, make_repository, public_folder

SERVICE, GROUP = 4321, 4322


@dataclass(frozen=True)
class Who:
    """A user, with a group of his own and perhaps another."""

    uid: int
    group: int | None = None

    @property
    def prefix(self) -> list[str]:
        """Of a command that is run by him."""
        if self.uid == 0:
            return []
        groups = ",".join(map(str, filter(None, (self.uid, self.group))))
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}", f"--groups={groups}"]
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return ["setpriv", *ids, *reads, "--"]


ROOT, ALICE, BOB, LONER = Who(0), Who(4331, GROUP), Who(4332, GROUP), Who(4333)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


@pytest.fixture
def place() -> Iterator[Path]:
    with public_folder() as top:
        yield top


def dsollama(
    bench: Bench, who: Who, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the program as somebody, with a careful umask.

    He may read everything, but only that: Python itself may lie in a home that is closed to him.
    """
    home = bench.store.parent / f"home-{who.uid}"
    home.mkdir(exist_ok=True)
    os.chown(home, who.uid, who.uid)
    environment = bench.environment() | {"HOME": str(home), "HF_HOME": str(home / "hf")}
    return subprocess.run(
        [*who.prefix, sys.executable, "-m", "dsollama", *arguments],
        env=environment | {"DSOLLAMA_MAX_WAIT": "0.1"} | variables,
        cwd="/",
        umask=0o077,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def bench(place: Path, shards: Callable[..., list[Path]]) -> Iterator[Bench]:
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        yield Bench(hub, hub.repositories[TERMINUS], place / "models", [])


def make_store(store: Path, owner: int, mode: int) -> None:
    store.mkdir()
    os.chown(store, owner, GROUP)
    store.chmod(mode)


def closed_to_the_group(store: Path) -> list[str]:
    """What a member of the group could not change: folders and files of another group or mode."""
    wrong = []
    for path in store.rglob("*"):
        found = path.lstat()
        wanted = 0o770 if path.is_dir() else 0o660
        if found.st_gid != GROUP or found.st_mode & wanted != wanted:
            wrong.append(f"{path.relative_to(store)}: {stat.filemode(found.st_mode)}")
    return wrong


@pytest.mark.parametrize(
    ("who", "owner", "mode"),
    [
        (ALICE, SERVICE, 0o2775),
        (ALICE, SERVICE, 0o775),
        (ALICE, ALICE.uid, 0o2770),
        (LONER, LONER.uid, 0o2775),  # without that bit nobody gives to a group that he is not in
        (ROOT, SERVICE, 0o775),
    ],
    ids=["a member", "no set-group-id", "its owner", "its owner, who is no member", "root"],
)
def test_what_is_made_in_a_groups_store_is_the_groups(
    who: Who, owner: int, mode: int, bench: Bench
) -> None:
    make_store(bench.store, owner, mode)
    done = dsollama(bench, who, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    assert not closed_to_the_group(bench.store)
    for path in bench.store.rglob("*"):
        others = 0o660 if path.name == "lock" else 0o775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.lstat().st_mode) & 0o777 == others, path


def test_members_go_on_with_what_others_have_begun(bench: Bench) -> None:
    """Bob stops in the middle, Alice ends it; Bob removes it, Alice collects what is left."""
    make_store(bench.store, SERVICE, 0o2775)
    bench.hub.fault = lambda request: Fault(status=403) if download_3(request) else None
    assert dsollama(bench, BOB, "install", "UD-Q2_K_XL", "--yes").returncode != 0
    assert not closed_to_the_group(bench.store)
    bench.hub.fault = lambda _request: None
    done = dsollama(bench, ALICE, "install", "--resume", "--yes")
    assert done.returncode == 0, done.stderr
    assert not closed_to_the_group(bench.store)
    name = done.stdout.split()[0]
    done = dsollama(bench, BOB, "verify", "--repair")
    assert done.returncode == 0, done.stderr
    done = dsollama(bench, BOB, "remove", name, "--all-variants", "--yes")
    assert done.returncode == 0, done.stderr
    done = dsollama(bench, ALICE, "gc", "--delete", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert not list(bench.store.glob("blobs/*"))


def test_a_folder_that_is_closed_is_told_before_the_download(bench: Bench) -> None:
    """Ollama's own folders are its user's alone, mode 0755, also in a store of a group."""
    make_store(bench.store, SERVICE, 0o2775)
    library = bench.store / "manifests" / "registry.ollama.ai" / "library"
    library.mkdir(parents=True)
    for folder in (library, *library.parents[:2]):
        os.chown(folder, SERVICE, SERVICE)
        folder.chmod(0o775 if folder == bench.store / "manifests" else 0o755)
    done = dsollama(bench, ALICE, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode not in {0, 1}
    assert f"{bench.store / 'manifests'} is not writable by {ALICE.uid}" in done.stderr
    (way,) = [line for line in done.stderr.splitlines() if "Open all of its folders" in line]
    _, command, _ = way.split("`")
    subprocess.run(["sh", "-c", command.replace("sudo ", "")], check=True)
    done = dsollama(bench, ALICE, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr

    library.chmod(0o755)  # as Ollama makes it for another model
    done = dsollama(bench, ALICE, "install", "Q2_K_XL", "--name", "x", "--yes")
    assert done.returncode not in {0, 1}
    assert f"{library} is not writable by {ALICE.uid}" in done.stderr


@pytest.mark.parametrize("closed", ["blobs", ".dsollama/ledger", "manifests/registry.ollama.ai"])
def test_root_is_told_how_to_give_away_what_an_older_run_has_made(
    closed: str, bench: Bench
) -> None:
    """Older ones made folders of root's in the service's store."""
    make_store(bench.store, SERVICE, 0o755)
    folder = bench.store / closed
    folder.mkdir(parents=True)
    for each in folder.parents:
        if each == bench.store:
            break
        os.chown(each, SERVICE, GROUP)
    done = dsollama(bench, ROOT, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode not in {0, 1}
    assert f"{folder} is not writable by {SERVICE} (as whom root works there)" in done.stderr
    assert f"`sudo chown -R {SERVICE}:{GROUP} {folder}`" in done.stderr
    assert "As root it goes" not in done.stderr
    subprocess.run(["chown", "-R", f"{SERVICE}:{GROUP}", folder], check=True)
    done = dsollama(bench, ROOT, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr


def test_an_owner_who_is_not_in_the_group_of_his_store(bench: Bench) -> None:
    """nobody's group is not 4322: what root makes as nobody cannot be given to it, and need not."""
    make_store(bench.store, 65534, 0o755)
    done = dsollama(bench, ROOT, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    assert {path.lstat().st_uid for path in bench.store.rglob("*")} == {65534}


def test_ollama_of_the_group_pulls_and_deletes_beside_what_a_member_made(
    bench: Bench, ollama_program: Path, place: Path
) -> None:
    """The real Ollama under its own user, in a store in which Alice's dsollama made everything."""
    make_store(bench.store, ALICE.uid, 0o2775)
    done = dsollama(bench, ALICE, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    orphan = bench.store / "blobs" / f"sha256-{'0' * 64}"
    orphan.write_bytes(b"nobody's")
    os.chown(orphan, ALICE.uid, GROUP)
    os.utime(orphan, (0, 0))
    (place / "home").mkdir()
    os.chown(place / "home", SERVICE, GROUP)
    shutil.copy(ollama_program, place / "ollama")
    as_service = place / "ollama-as-service"
    options = f"--reuid={SERVICE} --regid={GROUP} --clear-groups"
    as_service.write_text(f'#!/bin/sh\nexec setpriv {options} -- {place}/ollama "$@"\n')
    as_service.chmod(0o755)
    environment = private_environment(place / "home", bench.store, free_port(), os.environ)
    del environment["OLLAMA_NOPRUNE"]

    with private_ollama(as_service, environment, place / "log") as address:
        client = ollama.Client(address)
        assert not orphan.exists()  # it prunes when it starts
        assert {str(model.model) for model in client.list().models} == set(names)
        # By the API a model is pulled, from a registry on loopback (ollama.handover).
        by_api = ("install", "UD-Q2_K_XL", "--yes", "--via", "api", "--name", "pulled")
        done = dsollama(bench, ALICE, *by_api, OLLAMA_HOST=address)
        assert done.returncode == 0, done.stderr
        pulled = done.stdout.split()
        assert len(pulled) == 2
        client.copy(pulled[0], names[0])  # in the place of ours
        # It sets the time of weights that it takes, and only their owner may do so: docs/store.md.
        with pytest.raises(ollama.ResponseError, match="chtimes"):
            client.create("made", from_=names[1], parameters={"temperature": 0.1})
        ours = {
            path.name for path in bench.store.glob("blobs/*") if path.stat().st_uid == ALICE.uid
        }
        assert len(ours) > 3
        for name in (*names, *pulled):
            client.delete(name)
    assert ours.isdisjoint(path.name for path in bench.store.glob("blobs/*"))
    assert not [path for path in bench.store.glob("manifests/**/*") if path.is_file()]
