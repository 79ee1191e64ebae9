import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dsollama.errors import (
    BrokenManifestError,
    NotEnoughDiskError,
    NotInstalledError,
    StoreError,
    StoreNotWritableError,
)
from dsollama.manifest.manifest import MAX_MANIFEST_BYTES
from dsollama.manifest.names import parse_name
from dsollama.store.files import store_failures
from dsollama.store.store import MAX_SMALL_BLOB, Store

# sha256 of "abc", FIPS 180-2's own example
ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
LIBRARY = "manifests/registry.ollama.ai/library"
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def manifest(size: int = 3, **changes: object) -> bytes:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": ABC, "size": size}
    whole = {"schemaVersion": 2, "config": {**layer, "mediaType": "c", "size": 5}}
    return json.dumps({**whole, "layers": [layer], **changes}).encode()


def put(store: Store, place: str, data: bytes) -> Path:
    path = store.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def files(store: Store) -> dict[str, bytes]:
    found = (path for path in store.root.rglob("*") if path.is_file())
    return {str(path.relative_to(store.root)): path.read_bytes() for path in found}


def listed(store: Store) -> list[str]:
    return [str(model.name) for model in store.models()]


def as_ordinary_user(work: Callable[[], object]) -> str:
    """Do the work without root's rights and return the name of the error that it ends in."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            work()
            os.write(write, b"no error")
        except BaseException as error:  # noqa: BLE001
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


def test_making_a_store_touches_nothing(store: Store) -> None:
    assert store.models() == []
    assert list(store.ledger.entries()) == []
    assert store.free_bytes() > 0
    store.require_writable()
    assert not store.root.exists()


def test_a_blob_is_written_once_where_ollama_looks_and_readable_by_it(store: Store) -> None:
    assert not store.has_blob(ABC, 3)
    store.put_blob(ABC, b"abc")
    path = store.root / "blobs" / ABC.replace(":", "-")
    assert files(store) == {f"blobs/{path.name}": b"abc"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    before = path.stat()
    store.put_blob(ABC, b"abc")
    assert path.stat() == before
    assert store.has_blob(ABC, 3)
    assert not store.has_blob(ABC, 4)


def test_a_blob_of_another_size_is_written_anew(store: Store) -> None:
    put(store, f"blobs/{ABC.replace(':', '-')}", b"ab")
    store.put_blob(ABC, b"abc")
    assert store.read_blob(ABC) == b"abc"


def test_an_adopted_file_is_moved_not_copied(store: Store) -> None:
    source = put(store, ".dsollama/staging/x/merged.gguf", b"abc")
    source.chmod(0o600)
    inode = source.stat().st_ino
    store.adopt_blob(ABC, source)
    assert files(store) == {f"blobs/{ABC.replace(':', '-')}": b"abc"}
    assert store.blob_path(ABC).stat().st_ino == inode
    assert stat.S_IMODE(store.blob_path(ABC).stat().st_mode) == 0o644


def test_a_file_that_cannot_be_adopted_stays_where_it_is(store: Store) -> None:
    source = put(store, ".dsollama/staging/x/merged.gguf", b"abc")
    put(store, "blobs", b"a file in the way")
    before = files(store)
    with pytest.raises(StoreNotWritableError):
        store.adopt_blob(ABC, source)
    assert files(store) == before


@pytest.mark.parametrize(
    "digest", ["", "sha256:", ABC[:-1], ABC.upper(), ABC.replace(":", "-"), "sha256:../../x"]
)
def test_what_is_not_a_digest_names_no_blob(store: Store, digest: str) -> None:
    for use in (store.blob_path, store.read_blob):
        with pytest.raises(BrokenManifestError, match="is not a digest"):
            use(digest)


def test_a_blob_is_read_up_to_the_bound_of_a_small_one(store: Store) -> None:
    path = put(store, f"blobs/{ABC.replace(':', '-')}", b"")
    os.truncate(path, MAX_SMALL_BLOB)
    assert store.read_blob(ABC) == bytes(MAX_SMALL_BLOB)
    os.truncate(path, MAX_SMALL_BLOB + 1)
    with pytest.raises(BrokenManifestError, match="too large"):
        store.read_blob(ABC)
    path.unlink()
    with pytest.raises(BrokenManifestError, match="cannot be read"):
        store.read_blob(ABC)


def test_an_installed_model_is_read_back(store: Store) -> None:
    name = parse_name("h:80/n/m:t")
    path = put(store, "manifests/h:80/n/m/t", manifest())
    os.utime(path, (1000, 1000))
    model = store.model(name)
    assert (model.name, model.size) == (name, 5 + 3)
    assert model.modified == datetime.fromtimestamp(1000, UTC)
    weights = model.layer("application/vnd.ollama.image.model")
    assert weights is not None
    assert (weights.digest, weights.size) == (ABC, 3)
    assert model.layer("application/vnd.ollama.image.template") is None
    assert store.models() == [model]


def test_a_model_that_is_not_there_is_told_what_is(store: Store) -> None:
    with pytest.raises(NotInstalledError) as caught:
        store.model(parse_name("m"))
    assert caught.value.hint == "It has no model at all."
    put(store, f"{LIBRARY}/a/x", manifest())
    put(store, "manifests/registry.ollama.ai/n/b/y", manifest())
    with pytest.raises(NotInstalledError) as caught:
        store.model(parse_name("m"))
    assert caught.value.hint == "It has a:x, n/b:y."


JUNK = {
    "empty": b"",
    "not JSON": b"<html>",
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"1",
    "no layers": b'{"config": {"mediaType": "a", "digest": "b", "size": 1}}',
    "layers of text": manifest(layers=["x"]),
    "layers null": manifest(layers=None),
    "no config": manifest(config=None),
    "size in words": manifest(config={"mediaType": "a", "digest": "b", "size": "big"}),
    "size null": manifest(config={"mediaType": "a", "digest": "b", "size": None}),
    # OverflowError and RecursionError: one broken manifest must not hide the others.
    "size without end": manifest().replace(b'"size": 3', b'"size": 1e999'),
    "nested too deep": b"[" * 200_000,
}


@pytest.mark.parametrize("name", JUNK)
def test_a_manifest_that_cannot_be_read_is_broken_and_not_listed(store: Store, name: str) -> None:
    put(store, f"{LIBRARY}/good/latest", manifest())
    put(store, f"{LIBRARY}/junk/latest", JUNK[name])
    with pytest.raises(BrokenManifestError, match="manifest of junk:latest cannot be read"):
        store.model(parse_name("junk"))
    assert listed(store) == ["good:latest"]


def test_a_manifest_larger_than_any_is_broken_and_not_listed(store: Store) -> None:
    os.truncate(put(store, f"{LIBRARY}/huge/latest", b""), MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BrokenManifestError, match="too large"):
        store.model(parse_name("huge"))
    assert listed(store) == []


def test_what_is_not_at_a_manifests_place_is_not_listed(store: Store) -> None:
    places = ("a/-x", "a/.DS_Store", "a b/latest", "latest", "deep/er/latest")
    for place in places:
        put(store, f"{LIBRARY}/{place}", manifest())
    put(store, "manifests/registry.ollama.ai/na.me/m/latest", manifest())
    (store.root / LIBRARY / "folder/latest").mkdir(parents=True)
    (store.root / LIBRARY / "dangling").mkdir()
    (store.root / LIBRARY / "dangling/latest").symlink_to("nowhere")
    put(store, f"{LIBRARY}/a/good", manifest())
    assert listed(store) == ["a:good"]


def test_a_folder_that_does_not_exist_yet_is_writable_if_one_above_it_is(tmp_path: Path) -> None:
    Store(tmp_path / "a/b/c").require_writable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "blobs", "manifests", ".dsollama"])
def test_a_file_in_the_way_is_told_before_anything_is_written(store: Store, place: str) -> None:
    path = put(store, place, b"a file in the way")
    with pytest.raises(StoreNotWritableError, match=f"{re.escape(str(path))} is not writable"):
        store.require_writable()
    assert path.read_bytes() == b"a file in the way"


def test_a_file_above_the_store_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreNotWritableError, match="file is not writable"):
        Store(tmp_path / "file/models").require_writable()


@pytest.fixture
def visible_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        Path(name).chmod(0o700)


def test_a_folder_that_may_only_be_looked_at_is_not_writable(visible_folder: Path) -> None:
    visible_folder.chmod(0o555)
    for root in (visible_folder, visible_folder / "models"):
        assert as_ordinary_user(Store(root).require_writable) == "StoreNotWritableError"


# Path.exists raises PermissionError there (Python 3.11 to 3.13); /usr/share/ollama/.ollama may
# be such a folder.
def test_a_folder_that_may_not_be_entered_is_not_writable(visible_folder: Path) -> None:
    visible_folder.chmod(0)
    store = Store(visible_folder / ".ollama/models")
    assert as_ordinary_user(store.require_writable) == "StoreNotWritableError"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NotEnoughDiskError),
        (errno.EDQUOT, NotEnoughDiskError),
        (errno.EACCES, StoreNotWritableError),
        (errno.EROFS, StoreNotWritableError),
    ],
)
def test_a_failure_of_the_disk_is_told_as_one(
    tmp_path: Path, number: int, kind: type[StoreError]
) -> None:
    with pytest.raises(kind, match=re.escape(str(tmp_path))), store_failures(tmp_path):
        raise OSError(number, os.strerror(number))
