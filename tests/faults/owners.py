"""Root in a store that is somebody else's, and users who share one by a group."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsollama.testing.loopback_hub import Fault
from faults.scene import SILENCE, Scene, case, download, is_root

OWNERS = "Another user's store"
OWNER, GROUP = 4321, 4322
"""Numbers that no system has; the kernel asks for no more."""

WORKS = f"by {OWNER} .as whom root works there."


@case(OWNERS, "as root: a folder in it is root's, by an older run", exits=5, says=WORKS)
def folder_of_roots(scene: Scene) -> Iterator[None]:
    _give(scene)
    os.chown(scene.store / "blobs", 0, 0)
    yield
    os.chown(scene.store / "blobs", OWNER, GROUP)


@case(OWNERS, "as root: its owner may not enter a folder above it", exits=5,
      says=f"cannot be entered {WORKS}")  # fmt: skip
def closed_above(scene: Scene) -> Iterator[None]:
    _give(scene)
    scene.tmp.chmod(0o700)
    yield
    scene.tmp.chmod(0o711)


@case(
    OWNERS, "as root: its owner lays a link to a folder of root's at `blobs`", exits=5, says=WORKS
)
def blobs_is_a_link(scene: Scene) -> Iterator[None]:
    _give(scene)
    aside = (scene.store / "blobs").rename(scene.store / "aside")
    shutil.copytree(aside, scene.tmp / "roots")
    _link(scene.store / "blobs", scene.tmp / "roots")
    yield
    (scene.store / "blobs").unlink()
    aside.rename(scene.store / "blobs")


@case(OWNERS, "as root: its owner lays a link to a folder of root's at `.dsollama/staging`",
      exits=5, says=WORKS)  # fmt: skip
def staging_is_a_link(scene: Scene) -> Iterator[None]:
    _give(scene)
    roots = scene.tmp / "roots"
    roots.mkdir()
    _link(scene.own / "staging", roots)
    yield
    assert not list(roots.iterdir())
    (scene.own / "staging").unlink()


@case(OWNERS, "as root: its owner lays a second name of a file of root's at merged.gguf",
      exits=5, says="cannot be written: Permission denied")  # fmt: skip
def merged_is_roots(scene: Scene) -> Iterator[None]:
    secret = scene.tmp / "secret"
    secret.write_text("root's alone")
    staging = _staging(scene)
    os.link(secret, staging / "merged.gguf")
    yield
    assert secret.read_text() == "root's alone"
    assert (secret.stat().st_uid, secret.stat().st_size) == (0, 12)
    shutil.rmtree(staging, ignore_errors=True)


@case(OWNERS, "a pipe is where the journal is written", exits=5, says="it is not a regular file")
def journal_is_a_pipe(scene: Scene) -> Iterator[None]:
    """The CDN falls silent, so that as much has come by then on a busy machine as on another."""
    scene.environment |= SILENCE
    scene.on(download, Fault(stall_after=2**16))
    staging = _staging(scene)
    os.mkfifo(staging / "journal.json.new")
    os.chown(staging / "journal.json.new", OWNER, GROUP)
    yield
    (staging / "journal.json.new").unlink(missing_ok=True)


@case(OWNERS, "a pipe is where the store's lock is", exits=5, says="it is not a regular file")
def lock_is_a_pipe(scene: Scene) -> Iterator[None]:
    _give(scene)
    (scene.own / "lock").unlink(missing_ok=True)
    os.mkfifo(scene.own / "lock")
    os.chown(scene.own / "lock", OWNER, GROUP)
    yield
    (scene.own / "lock").unlink()


@case(OWNERS, "as root: others can write to a folder of root's store", exits=5,
      says="every user can change .*/blobs")  # fmt: skip
def others_can_write(scene: Scene) -> Iterator[None]:
    _require_root()
    (scene.store / "blobs").chmod(0o777)
    yield
    (scene.store / "blobs").chmod(0o755)


@case(OWNERS, "as root: a shard of another user's `--from-dir` is a link to a file of root's",
      exits=4, says="cannot be read: Permission denied")  # fmt: skip
def from_dir_has_a_link(scene: Scene) -> Iterator[None]:
    _give(scene)
    folder = scene.tmp / "shards"
    folder.mkdir()
    for path in scene.bench.shards:
        shutil.copy(path, folder)
        os.chown(folder / path.name, OWNER, GROUP)
    os.chown(folder, OWNER, GROUP)
    secret = scene.tmp / "secret"
    last = (folder / scene.bench.shards[2].name).rename(secret)
    os.chown(last, 0, 0)
    secret.chmod(0o600)
    _link(folder / scene.bench.shards[2].name, secret)
    scene.arguments = (*scene.arguments, "--from-dir", str(folder))
    yield
    (folder / scene.bench.shards[2].name).unlink()


@case(OWNERS, "it is a group's, and a folder of Ollama's in it is closed to the group", exits=5,
      says="is not writable by")  # fmt: skip
def closed_to_the_group(scene: Scene) -> Iterator[None]:
    _give(scene)
    library = scene.store / "manifests" / "registry.ollama.ai" / "library"
    for path in (scene.store, *(each for each in scene.store.rglob("*") if each.is_dir())):
        path.chmod(0o755 if path == library else 0o2775)
    # May read everything, but only that: Python itself may lie in a home that is closed to him.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    scene.prefix = ["setpriv", "--reuid=4331", f"--regid={GROUP}", "--clear-groups", *reads, "--"]
    scene.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    yield
    library.chmod(0o2775)


def _require_root() -> None:
    if not is_root():
        pytest.skip("only root can work as another user")


def _give(scene: Scene) -> None:
    """Let the store, and a way to it, be another user's."""
    _require_root()
    scene.own.mkdir(exist_ok=True)
    for path in (scene.store, *scene.store.rglob("*")):
        os.chown(path, OWNER, GROUP)
    for folder in scene.store.parents:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)


def _staging(scene: Scene) -> Path:
    """Make the folder of this install."""
    folder = scene.own / "staging" / scene.key()
    folder.mkdir(parents=True)
    _give(scene)
    return folder


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)
    os.lchown(path, OWNER, GROUP)
