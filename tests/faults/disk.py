"""Faults of the disk, on real file systems; and of what lies where the store should be."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from faults import mounts, wire
from faults.scene import Scene, as_user, case, download_2, download_3, is_root

DISK = "The disk"
PLACE = "The store's place"
USER = 65534
EXT4_SHUTDOWN = 0x8004587D
"""ioctl EXT4_IOC_SHUTDOWN; with the flag 2 nothing is written any more, not even the journal."""


@case(DISK, "too small from the start (tmpfs)", exits=5, says="The install needs")
def too_small(scene: Scene) -> Iterator[None]:
    mounts.mount_store(scene, "tmpfs", "size=20m")
    yield
    mounts.remount(scene, "size=200m")


@case(DISK, "something else takes the room meanwhile; it was reserved (ext4)", exits=0)
def room_is_reserved(scene: Scene) -> Iterator[None]:
    mounts.mount_image(scene, "ext4", 64)

    def fill(handler: BaseHTTPRequestHandler) -> None:
        _fill(scene.store / "filler", leave=4 * 2**20)
        wire.partial()(handler)

    scene.on(download_2, fill, 1)
    yield
    (scene.store / "filler").unlink()


@case(DISK, "something else takes all room meanwhile (ext4)", exits=5, says="is full")
def no_room_for_the_rest(scene: Scene) -> Iterator[None]:
    mounts.mount_image(scene, "ext4", 64)

    def fill(handler: BaseHTTPRequestHandler) -> None:
        _fill(scene.store / "filler", leave=0)
        wire.partial()(handler)

    scene.on(download_3, fill, 1)
    yield
    (scene.store / "filler").unlink()


@case(DISK, "something else takes the room, which cannot be reserved (ext2)", exits=5,
      says="is full")  # fmt: skip
def not_reserved(scene: Scene) -> Iterator[None]:
    mounts.mount_image(scene, "ext2", 64)

    def fill(handler: BaseHTTPRequestHandler) -> None:
        _fill(scene.store / "filler", leave=0)
        wire.partial()(handler)

    scene.on(download_2, fill, 1)
    yield
    (scene.store / "filler").unlink()


@case(DISK, "no inodes are left (tmpfs)", exits=5, says="is full")
def no_inodes(scene: Scene) -> Iterator[None]:
    used = sum(1 for _ in scene.store.rglob("*")) + 1
    mounts.mount_store(scene, "tmpfs", f"size=200m,nr_inodes={used + 1}")
    yield
    mounts.remount(scene, "nr_inodes=1000")


@case(DISK, "the user's quota is used up (tmpfs)", exits=5, says="is full")
def quota(scene: Scene) -> Iterator[None]:
    mounts.mount_store(scene, "tmpfs", "size=200m,usrquota,usrquota_block_hardlimit=24m")
    give_store(scene)
    yield


@case(DISK, "mounted read-only", exits=5, says="cannot be written")
def read_only(scene: Scene) -> Iterator[None]:
    mounts.mount_store(scene, "tmpfs", "size=200m")
    mounts.remount(scene, "ro")
    yield
    mounts.remount(scene, "rw")


@case(DISK, "goes away in the middle: every write fails (ext4 after an I/O error)", exits=5,
      says="cannot be written", killed=True)  # fmt: skip
def disk_fails(scene: Scene) -> Iterator[None]:
    image = mounts.mount_image(scene, "ext4", 100)

    def fail(handler: BaseHTTPRequestHandler) -> None:
        _shut_down(scene.store)
        wire.partial()(handler)

    def again(process: subprocess.Popen[bytes]) -> None:
        process.wait(30)
        mounts.unmount(scene)
        mounts.mount_again(scene, "ext4", image)

    scene.on(download_3, fail, 1)
    scene.during = again
    yield


@case(DISK, "power loss: what was not written to the disk is gone (ext4)", exits=-9, killed=True)
def power_loss(scene: Scene) -> Iterator[None]:
    image = mounts.mount_image(scene, "ext4", 100)
    scene.on(download_3, wire.silent)
    scene.environment["DSOLLAMA_READ_TIMEOUT"] = "30"

    def lose(process: subprocess.Popen[bytes]) -> None:
        scene.await_journal()
        _shut_down(scene.store)
        process.kill()
        process.wait()
        mounts.unmount(scene)
        mounts.mount_again(scene, "ext4", image)

    scene.during = lose
    yield


@case(DISK, "another one than the home's (tmpfs)")
def another_device(scene: Scene) -> Iterator[None]:
    mounts.mount_store(scene, "tmpfs", "size=200m")
    yield


@case(DISK, "one without fallocate, O_DIRECT, or a size (ramfs)")
def ramfs(scene: Scene) -> Iterator[None]:
    mounts.mount_store(scene, "ramfs")
    yield


@case(DISK, "a limit on the size of files (ulimit -f)", exits=5, says="cannot be written")
def file_size_limit(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", f"--fsize={20 * 2**20}"]
    yield


@case(DISK, "a limit on open files (ulimit -n 64)")
def open_files_limit(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", "--nofile=64"]
    scene.environment["DSOLLAMA_CONNECTIONS"] = "8"
    yield


@case(PLACE, "it belongs to another user", exits=5, says="cannot be written")
def foreign_store(scene: Scene) -> Iterator[None]:
    _as_another_user(scene)
    yield


@case(PLACE, "manifests/ belongs to another user", exits=5, says="cannot be written")
def foreign_manifests(scene: Scene) -> Iterator[None]:
    _as_another_user(scene)
    give_store(scene)
    _own(scene.store / "manifests", 0)
    yield
    _own(scene.store, 0)


@case(PLACE, "blobs is a file", exits=5, says="cannot be written")
def blobs_is_a_file(scene: Scene) -> Iterator[None]:
    with _file_at(scene.store / "blobs"):
        yield


@case(PLACE, "manifests is a file", exits=5, says="cannot be written")
def manifests_is_a_file(scene: Scene) -> Iterator[None]:
    with _file_at(scene.store / "manifests"):
        yield


@case(PLACE, "the store is a file", exits=5, says="cannot be written")
def store_is_a_file(scene: Scene) -> Iterator[None]:
    with _file_at(scene.store):
        yield


@case(PLACE, ".dsollama/staging is a file", exits=5, says="cannot be written")
def staging_is_a_file(scene: Scene) -> Iterator[None]:
    (scene.own / "staging").write_bytes(b"")
    yield
    (scene.own / "staging").unlink()


@case(PLACE, "a folder lies where a manifest goes", exits=5, says="cannot be written")
def folder_for_a_manifest(scene: Scene) -> Iterator[None]:
    library = scene.store / "manifests/registry.ollama.ai/library/deepseek-v3.1-terminus"
    (library / "UD-Q2_K_XL-thinking").mkdir(parents=True)
    yield
    (library / "UD-Q2_K_XL-thinking").rmdir()


class _file_at:  # noqa: N801 - used as a function
    """An empty file in the place of a folder, inside the block."""

    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_name(path.name + ".aside")

    def __enter__(self) -> None:
        self._path.rename(self._aside)
        self._path.write_bytes(b"")

    def __exit__(self, *_: object) -> None:
        self._path.unlink()
        self._aside.rename(self._path)


def _fill(path: Path, leave: int) -> None:
    """Take all of a file system's room but `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                free = os.statvfs(path.parent)
                left = free.f_bavail * free.f_bsize - leave
                if left <= 0 and leave:
                    return
                file.write(bytes(min(max(left, 4096), 2**20)))
        except OSError:
            return


def _shut_down(store: Path) -> None:
    """Cut an ext4 off from its disk, as a lost power supply does."""
    handle = os.open(store, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, EXT4_SHUTDOWN, struct.pack("I", 2))
    finally:
        os.close(handle)


def _as_another_user(scene: Scene, user: int = USER) -> None:
    """Let the program be run by a user who does not own the store."""
    if not is_root():
        pytest.skip("only root can run a program as another user")
    scene.prefix = as_user(user)
    scene.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    for folder in (scene.store, *scene.store.parents):
        if folder != Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    works = [*scene.prefix, sys.executable, "-c", "import dsollama.cli.app"]
    if subprocess.run(works, capture_output=True, check=False, env=scene.environment).returncode:
        pytest.skip("another user cannot read this Python")


def give_store(scene: Scene, user: int = USER) -> None:
    """Let the store belong to another user, who runs the program."""
    if not scene.prefix:
        _as_another_user(scene, user)
    _own(scene.store, user)


def _own(top: Path, user: int) -> None:
    for path in (top, *top.rglob("*")):
        os.chown(path, user, user)
