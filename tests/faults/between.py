"""What an interrupted install left is damaged before the next run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dsollama.testing.loopback_hub import Fault
from faults.scene import Scene, case, download_3

BETWEEN = "Between two runs"
STOPS = "failed 6 times in a row"


def _stopped(scene: Scene) -> None:
    """Let the first run end with two of three shards in place."""
    scene.on(download_3, Fault(status=503))


@case(BETWEEN, "the staged file is deleted", exits=3, says=STOPS)
def staged_deleted(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    (scene.staging / "merged.gguf").unlink()


@case(BETWEEN, "the staged file is cut off in shard 2", exits=3, says=STOPS)
def staged_cut(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    os.truncate(scene.staging / "merged.gguf", 20_000_000)


@case(BETWEEN, "a byte of shard 1 is flipped", exits=3, says=STOPS)
def staged_flipped(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    with (scene.staging / "merged.gguf").open("r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)[0]
        file.seek(5_000_000)
        file.write(bytes([byte ^ 1]))


@case(BETWEEN, "the merged header is overwritten", exits=3, says=STOPS)
def header_overwritten(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    with (scene.staging / "merged.gguf").open("r+b") as file:
        file.write(b"spoilt")


@case(BETWEEN, "the journals are garbage", exits=3, says=STOPS)
def journal_garbage(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    for path in _journals(scene):
        path.write_bytes(b"\0garbage")


@case(BETWEEN, "the journals are empty files", exits=3, says=STOPS)
def journal_empty(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    for path in _journals(scene):
        path.write_bytes(b"")


@case(BETWEEN, "the journals are deleted", exits=3, says=STOPS)
def journal_deleted(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    for path in _journals(scene):
        path.unlink()


@case(BETWEEN, "the journal claims everything", exits=3, says=STOPS)
def journal_lies(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    path = scene.staging / "journal.json"
    claims = {str(number): 2**40 for number in range(1000)}
    path.write_text(json.dumps({"done": claims, "boot": "", "version": 2}))


@case(BETWEEN, "the journal is a link to a file of the user's", exits=3, says=STOPS)
def journal_is_a_link(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    for path in _journals(scene):
        path.unlink()
    _precious(scene, scene.staging / "journal.json")


@case(BETWEEN, "the staged file is a link to a file of the user's", exits=3, says=STOPS)
def staged_is_a_link(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    (scene.staging / "merged.gguf").unlink()
    _precious(scene, scene.staging / "merged.gguf")


@case(BETWEEN, "the journal is from another start of the machine", exits=3, says=STOPS)
def another_boot(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    path = scene.staging / "journal.json"
    journal = json.loads(path.read_bytes())
    path.unlink()
    journal["boot"] = "another"
    (scene.staging / "progress.json").write_text(json.dumps(journal))


@case(BETWEEN, "all of .dsollama is deleted", exits=3, says=STOPS)
def own_folder_deleted(scene: Scene) -> Iterator[None]:
    _stopped(scene)
    yield
    shutil.rmtree(scene.own)
    scene.before_own = set()


def _journals(scene: Scene) -> list[Path]:
    names = ("journal.json", "progress.json")
    return [path for path in (scene.staging / name for name in names) if path.exists()]


def _precious(scene: Scene, link: Path) -> None:
    """Put a link to a file that must stay as it is."""
    target = scene.tmp / "precious"
    target.write_bytes(b"precious" * 1000)
    link.symlink_to(target)

    def unharmed() -> None:
        assert target.read_bytes() == b"precious" * 1000

    scene.stack.callback(unharmed)
