"""Bounds: what is larger, longer or more than anything real, and locks that are not to be had."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from dsollama.gguf import encode as gg
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
