"""What is there already: names that somebody has, and spellings that collide."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.process import meanwhile, ollama, ollama_says
from faults.scene import Scene, case

NAMES = "Names that are taken"
LIBRARY = "manifests/registry.ollama.ai/library"
MODEL = "deepseek-v3.1-terminus"
PLAIN = f"{MODEL}:UD-Q2_K_XL"
TAKEN = "The install would replace"


def _place(scene: Scene, tag: str = "UD-Q2_K_XL") -> Path:
    return scene.store / LIBRARY / MODEL / tag


def _take(scene: Scene, place: Path) -> None:
    """Give the user's model another name, as `ollama cp` does."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(scene.store / LIBRARY / "earlier" / "latest", place)


def _free(place: Path) -> None:
    place.unlink()
    if not any(place.parent.iterdir()):
        place.parent.rmdir()


@case(NAMES, "another model has the name", exits=2, says=f"{TAKEN} {PLAIN} .weights")
def taken(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    yield
    _free(_place(scene))


@case(NAMES, "another model has the name of the second variant", exits=2, says=TAKEN)
def second_taken(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene, "UD-Q2_K_XL-thinking"))
    yield
    _free(_place(scene, "UD-Q2_K_XL-thinking"))


@case(NAMES, "another model has the name, and `--force` is given", says=f"Replaces {PLAIN}")
def forced(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    scene.arguments = (*scene.arguments, "--force")
    yield


@case(NAMES, "another model has the name in small letters", exits=2,
      says=f"{TAKEN} {MODEL}:ud-q2_k_xl .weights")  # fmt: skip
def taken_in_small_letters(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene, "ud-q2_k_xl"))
    yield
    _free(_place(scene, "ud-q2_k_xl"))


@case(NAMES, "a model whose manifest cannot be read has the name", exits=2,
      says="which weights it has cannot be told")  # fmt: skip
def taken_unreadably(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    _place(scene).write_bytes(b"{")
    yield
    _free(_place(scene))


@case(NAMES, "a link to another model's manifest has the name", exits=2, says=TAKEN)
def taken_by_a_link(scene: Scene) -> Iterator[None]:
    _place(scene).parent.mkdir()
    _place(scene).symlink_to(scene.store / LIBRARY / "earlier" / "latest")
    yield
    _free(_place(scene))


@case(NAMES, "the same weights have the name, with settings of the user's", exits=2,
      says="other settings of the same weights")  # fmt: skip
def other_settings(scene: Scene) -> Iterator[None]:
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    ours = _place(scene).read_bytes()
    shutil.copy(_place(scene, "UD-Q2_K_XL-thinking"), _place(scene))
    yield
    _place(scene).write_bytes(ours)


@case(NAMES, "the very model has them, and `.dsollama` is lost")
def same_without_a_ledger(scene: Scene) -> Iterator[None]:
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(scene.own)
    scene.before_own = set()
    yield


@case(NAMES, "a model takes the name in the middle", exits=2, says=f"another model {PLAIN}")
def taken_meanwhile(scene: Scene) -> Iterator[None]:
    def take() -> None:
        _take(scene, _place(scene))
        scene.before = scene.files()

    meanwhile(scene, take)
    yield
    _free(_place(scene))


@case(NAMES, "a model takes the name in the middle, in small letters", exits=2,
      says=f"another model {MODEL}:ud-q2_k_xl")  # fmt: skip
def taken_meanwhile_in_small_letters(scene: Scene) -> Iterator[None]:
    def take() -> None:
        _take(scene, _place(scene, "ud-q2_k_xl"))
        scene.before = scene.files()

    meanwhile(scene, take)
    yield
    _free(_place(scene, "ud-q2_k_xl"))


@case(NAMES, "it is one model at the start and another in the end, with `--force`", exits=2,
      says=f"another model {PLAIN}")  # fmt: skip
def changed_meanwhile(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    scene.arguments = (*scene.arguments, "--force")

    def change() -> None:
        _place(scene).write_bytes(_place(scene).read_bytes() + b"\n")
        scene.before = scene.files()

    meanwhile(scene, change)
    yield
    _free(_place(scene))


@case(NAMES, "`ollama cp` to the name in the middle", exits=2, says=f"another model {PLAIN}")
def copied_by_ollama(scene: Scene) -> Iterator[None]:
    def copy() -> None:
        with ollama(scene) as address:
            ollama_says(scene, address, "cp", "earlier", PLAIN)
        scene.before = scene.files()
        assert f"{LIBRARY}/{MODEL}/UD-Q2_K_XL" in scene.before

    meanwhile(scene, copy)
    yield
    _free(_place(scene))


@case(NAMES, "a file lies where the name's folder goes", exits=5, says="is in its way")
def file_for_a_folder(scene: Scene) -> Iterator[None]:
    _place(scene).parent.write_bytes(b"")
    yield
    _place(scene).parent.unlink()


@case(NAMES, "a file lies where the folder of its Modelfile goes", exits=5, says="is in its way")
def file_for_a_modelfile(scene: Scene) -> Iterator[None]:
    place = scene.own / "modelfiles" / "registry.ollama.ai" / "library" / MODEL
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"")
    yield
    place.unlink()
    scene.before_own.discard(str(place.relative_to(scene.own)))


@case(NAMES, "a folder lies where its Modelfile goes", exits=5, says="is in its way")
def folder_for_a_modelfile(scene: Scene) -> Iterator[None]:
    place = scene.own / "modelfiles" / "registry.ollama.ai" / "library" / MODEL / "UD-Q2_K_XL"
    place.mkdir(parents=True)
    yield
    place.rmdir()


@case(NAMES, "a link that leads nowhere has the name", exits=2,
      says="which weights it has cannot be told")  # fmt: skip
def taken_by_a_dangling_link(scene: Scene) -> Iterator[None]:
    _place(scene).parent.mkdir()
    _place(scene).symlink_to("/nonexistent/manifest")
    yield
    _free(_place(scene))


@case(NAMES, "a model of Ollama's cloud, which has no layers, has the name", exits=2,
      says="which weights it has cannot be told")  # fmt: skip
def taken_by_a_cloud_model(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    manifest = json.loads(_place(scene).read_bytes())
    _place(scene).write_text(json.dumps(manifest | {"layers": None}))
    yield
    _free(_place(scene))


@case(NAMES, "the model that `--force` would replace is gone in the end", says="Replaces")
def gone_meanwhile(scene: Scene) -> Iterator[None]:
    _take(scene, _place(scene))
    scene.arguments = (*scene.arguments, "--force")

    def remove() -> None:
        _free(_place(scene))
        scene.before = scene.files()

    meanwhile(scene, remove)
    yield
