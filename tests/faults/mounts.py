"""Real small file systems under the store; a machine that cannot mount them says why."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from faults.scene import Scene


def mount_store(scene: Scene, kind: str, options: str = "", *, copy: bool = True) -> None:
    """Put the store on a file system of its own, until the scene ends.

    Args:
        scene: whose store.
        kind: `tmpfs` or `ramfs`.
        options: of `mount -o`.
        copy: keep what the store holds.
    """
    _mount(scene, ["-t", kind, *(["-o", options] if options else []), "dsollama-test"], copy=copy)


def mount_image(scene: Scene, kind: str, megabytes: int, options: str = "loop") -> Path:
    """Put the store on a file system in a file; return the file."""
    image = scene.tmp / "disk.img"
    with image.open("wb") as file:
        file.truncate(megabytes * 2**20)
    _run([f"mkfs.{kind}", "-q", "-F", "-m", "0", str(image)])
    _mount(scene, ["-t", kind, "-o", options, str(image)])
    return image


def remount(scene: Scene, options: str) -> None:
    """Mount the store's file system in another way."""
    _run(["mount", "-o", f"remount,{options}", str(scene.store)])


def unmount(scene: Scene) -> None:
    """Take the file system from under the store."""
    _run(["umount", str(scene.store)])


def mount_again(scene: Scene, kind: str, image: Path) -> None:
    """Mount what was unmounted, as after a start of the machine."""
    _run(["mount", "-t", kind, "-o", "loop", str(image), str(scene.store)])


def _mount(scene: Scene, arguments: list[str], *, copy: bool = True) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    store = scene.store
    aside = store.with_name("aside")
    store.rename(aside)
    store.mkdir()
    _run(["mount", *arguments, str(store)])
    # Lazily, so that nothing stays in the way of the next test even if a file is open.
    scene.stack.callback(
        subprocess.run, ["umount", "-l", str(store)], check=False, capture_output=True
    )
    if copy:
        _run(["cp", "-a", f"{aside}/.", str(store)])
        _run(["sync", "-f", str(store)])


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"{command[0]} cannot be run here: {error.strerror}")
    if done.returncode:
        print(done.stderr)
        pytest.skip(f"`{' '.join(command[:-2])}` does not work on this machine")
