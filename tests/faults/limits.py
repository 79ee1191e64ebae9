"""Bounds: what is larger, longer or more than anything real, and locks that are not to be had."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hostile_stores
from dsollama.gguf import encode as gg
from dsollama.store.files import remove_if_empty
from dsollama.store.store import Store
from faults.scene import Scene, case
from lockless import without_locks

LISTED = "What the Hub lists"
PLACE = "The store's place"


@case(LISTED, "the header's architecture is a text of 3 MB", exits=4, says="is no name of a model")
def endless_architecture(scene: Scene) -> Iterator[None]:
    name = gg.encode_string("a" * 3_000_000)
    with _offered(scene, [_text("general.architecture", name)], [(32,)]):
        yield


@case(LISTED, "the files hold no tensors", exits=4, says="holds no tensors")
def no_tensors(scene: Scene) -> Iterator[None]:
    with _offered(scene, [_text("general.architecture", gg.encode_string("deepseek2"))], []):
        yield


@case(PLACE, "its file system has no locks (flock: ENOSYS, as Lustre without `-o flock`)", exits=5,
      says="has no locks")  # fmt: skip
def no_flock(scene: Scene) -> Iterator[None]:
    scene.prefix = without_locks(errno.ENOSYS)
    yield


@case(PLACE, "its file system has no locks (flock: ENOLCK, as NFS without its lock service)",
      exits=5, says="has no locks")  # fmt: skip
def no_lock_service(scene: Scene) -> Iterator[None]:
    scene.prefix = without_locks(errno.ENOLCK)
    yield


@case(PLACE, "its file system has no locks (flock: EOPNOTSUPP)", exits=5, says="has no locks")
def no_locks_supported(scene: Scene) -> Iterator[None]:
    scene.prefix = without_locks(errno.EOPNOTSUPP)
    yield


LITTERED = "A store filled to do harm"
LIBRARY = "manifests/registry.ollama.ai/library"
TIB = 2**40


@case(LITTERED, "manifests of 16 MB, of all shapes")
def manifests_of_16_mb(scene: Scene) -> Iterator[None]:
    with _filled(scene, hostile_stores.large_manifests):
        yield


@case(LITTERED, "a file of 1 TiB without a byte on the disk has the name", exits=2,
      says="which weights it has cannot be told")  # fmt: skip
def sparse_manifest(scene: Scene) -> Iterator[None]:
    path = scene.store / LIBRARY / "deepseek-v3.1-terminus" / "UD-Q2_K_XL"
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, TIB)
    # `scene.files` would read it all.
    moved = scene.tmp / "aside"
    scene.files, files = (dict), scene.files  # type: ignore[method-assign]
    yield
    scene.files = files  # type: ignore[method-assign]
    path.rename(moved)
    path.parent.rmdir()


@case(LITTERED, "ledger entries of 16 MB and of 4 MB")
def large_ledger(scene: Scene) -> Iterator[None]:
    with _filled(scene, hostile_stores.large_ledger):
        yield


@case(LITTERED, "records and journals of stopped installs and removals, of 16 MB and of 4 MB")
def large_records(scene: Scene) -> Iterator[None]:
    with _filled(scene, hostile_stores.large_records):
        yield


@case(LITTERED, "2,000 folders of stopped installs")
def stopped_installs(scene: Scene) -> Iterator[None]:
    def fill(store: Store) -> None:
        for number in range(2_000):
            record = hostile_stores.RECORD | {"quant": "Q9_K", "commit": f"{number:040x}"}
            hostile_stores.stopped_install(store, f"{number:016x}", json.dumps(record).encode())

    with _filled(scene, fill):
        yield


@case(LITTERED, "pipes without a writer where temporary files go")
def pipes(scene: Scene) -> Iterator[None]:
    def fill(store: Store) -> None:
        for name in ("1-2", "0" * 64 + ".json"):
            (store.own / "tmp").mkdir(parents=True, exist_ok=True)
            os.mkfifo(store.own / "tmp" / name)

    with _filled(scene, fill):
        yield


@case(LITTERED, "20,000 small files where temporary files go")
def small_files(scene: Scene) -> Iterator[None]:
    def fill(store: Store) -> None:
        (store.own / "tmp").mkdir(parents=True, exist_ok=True)
        for number in range(20_000):
            (store.own / "tmp" / f"{number}").touch()

    with _filled(scene, fill):
        yield


@contextmanager
def _filled(scene: Scene, fill: Callable[[Store], None]) -> Iterator[None]:
    """Fill the store, and take away in the end what was put there, but for what dsollama took."""
    store = Store(scene.store)
    before = set(scene.store.rglob("*"))
    fill(store)
    added = set(scene.store.rglob("*")) - before
    yield
    for path in sorted(added, reverse=True):
        if path.is_dir():
            remove_if_empty(path)
        else:
            path.unlink(missing_ok=True)


def _text(key: str, value: bytes) -> bytes:
    return gg.encode_string(key) + gg.STRING.to_bytes(4, "little") + value


@contextmanager
def _offered(scene: Scene, entries: list[bytes], tensors: list[tuple[int]]) -> Iterator[None]:
    """Let the Hub list another file under the quant, of these entries and tensors of 32 numbers."""
    infos = [gg.encode_tensor_info(b"%d" % n, dims, 0, 128 * n) for n, dims in enumerate(tensors)]
    path = scene.tmp / "offered-UD-Q2_K_XL.gguf"
    path.write_bytes(gg.encode_header(entries, infos) + bytes(128 * len(infos)))
    files = scene.bench.repository.files
    before = dict(files)
    files.clear()
    scene.bench.repository.add(path.name, path)
    yield
    files.clear()
    files.update(before)
