"""The store: blobs and manifests of one OLLAMA_MODELS folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from dsollama.errors import (
    BrokenManifestError,
    InvalidNameError,
    NotInstalledError,
    OversizedStoreError,
    StoreBusyError,
    StoreError,
    StoreNotWritableError,
)
from dsollama.manifest.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_SIZE,
    Allowance,
    InstalledLayer,
    parse_manifest,
)
from dsollama.manifest.names import ModelName, parse_name
from dsollama.store.files import (
    make_folder,
    place,
    read_small,
    store_failures,
    write_atomically,
)
from dsollama.store.ledger import Ledger
from dsollama.store.locks import take_lock
from dsollama.store.ownership import Facts, diagnose, look, sudo_command
from dsollama.store.registering import finish as finish_registration
from dsollama.store.spelling import same_name
from dsollama.store.walk import MAX_SEEN, is_own_folder, list_names, walk
from dsollama.units import some_of

MAX_SMALL_BLOB = 2 * 2**20
"""Templates, system prompts and the like are read only up to this size, in bytes. A system prompt
that fills a context of 160,000 tokens has 0.7 MB."""

MAX_JSON = 2**20
"""Configs and params have a kilobyte; as Python's objects JSON is up to 25 times as large."""

MAX_MODELS = 50_000
"""Of one store. Ollama reads all manifests for every list, and would take minutes."""

OWN_FOLDERS = ("tmp", "ledger", "staging", "modelfiles", "removing")
"""What dsollama keeps in its folder in the store."""

LOCK_SECONDS = 60.0
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARTS = 4
"""Of a manifest's place: HOST/NAMESPACE/NAME/TAG."""


@dataclass(frozen=True)
class InstalledModel:
    """A model of the store.

    Attributes:
        name: full name.
        config: its config layer.
        layers: the others, the weights first.
        modified: when the manifest was written.
    """

    name: ModelName
    config: InstalledLayer
    layers: tuple[InstalledLayer, ...]
    modified: datetime

    @property
    def size(self) -> int:
        """Bytes of all layers together."""
        return self.config.size + sum(layer.size for layer in self.layers)

    def layer(self, media_type: str) -> InstalledLayer | None:
        """Return the first layer of a media type."""
        return next((each for each in self.layers if each.media_type == media_type), None)


class Store:
    """One OLLAMA_MODELS folder; making the object touches nothing."""

    def __init__(self, root: Path) -> None:
        """Look at `root`, which may not exist yet."""
        self.root = root

    @property
    def own(self) -> Path:
        """dsollama's folder in the store."""
        return self.root / ".dsollama"

    @cached_property
    def ledger(self) -> Ledger:
        """What dsollama knows of the blobs that it put here."""
        return Ledger(self.own / "ledger", self.own / "tmp")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the store's lock: what names blobs, removes them or looks for orphans takes it.

        It is held for a moment only; downloads and digests are made without it. A registration
        that was killed is finished first.

        Raises:
            StoreBusyError: another dsollama holds it for longer than LOCK_SECONDS.
            NoLocksError: the file system has no locks.
            StoreError: the lock cannot be made.
        """
        make_folder(self.own)
        with store_failures(self.own):
            lock = take_lock(self.own / "lock", LOCK_SECONDS)
        if lock is None:
            raise StoreBusyError(
                f"Another dsollama is changing the store {self.root}.",
                "Try again when it has finished.",
            )
        try:
            with contextlib.suppress(StoreError):  # such as a full disk, which gc is to free
                finish_registration(self)
            yield
        finally:
            lock.release()

    def clear_temporary(self) -> None:
        """Remove what a killed process left half-written; the caller is `changing` the store.

        Whoever writes by way of `tmp/` is changing the store, so nobody is writing there now.

        Raises:
            StoreError: something cannot be removed.
        """
        if is_own_folder(self.root, ".dsollama", "tmp"):
            for seen in walk(self.own / "tmp"):
                if not seen.problem:
                    with store_failures(seen.path):
                        seen.path.unlink(missing_ok=True)

    def staging(self, key: str) -> Path:
        """Folder of the install called `key`."""
        return self.own / "staging" / key

    def blob_path(self, digest: str) -> Path:
        """Place of the blob `sha256:HEX`.

        Raises:
            BrokenManifestError: that is not a digest.
        """
        if not DIGEST.fullmatch(digest):
            raise BrokenManifestError(f"{digest!r} is not a digest.")
        return self.root / "blobs" / digest.replace(":", "-")

    def manifest_path(self, name: ModelName) -> Path:
        """Place of the manifest of `name`."""
        return self.root / "manifests" / name.path

    def modelfile_path(self, name: ModelName) -> Path:
        """Place of our Modelfile of `name`."""
        return self.own / "modelfiles" / name.path

    def free_bytes(self) -> int:
        """Bytes that this user can still write to the store's filesystem.

        One that tells no size at all, as ramfs and some network filesystems, has room.
        """
        with store_failures(self.root):
            usage = shutil.disk_usage(_nearest(self.root))
            return usage.free if usage.total else MAX_SIZE

    def require_writable(self, *folders: Path) -> None:
        """Raise StoreNotWritableError unless a folder can be made in the store; makes none.

        Args:
            folders: of the store, which must be writable, too.
        """
        facts = self.facts(*folders)
        found = diagnose(facts, sudo_command(sys.argv, self.root))
        if found is not None:
            raise StoreNotWritableError(*found)

    def facts(self, *folders: Path) -> Facts:
        """What there is to know of whose the store is, and more `folders` of it."""
        usual = [self.root / name for name in ("blobs", "manifests", ".dsollama")]
        usual += [self.own / name for name in OWN_FOLDERS]
        return look(self.root, [*usual, *folders])

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the blob is there with its size; its bytes are not read."""
        try:
            return self.blob_path(digest).stat().st_size == size
        except OSError:
            return False

    def put_blob(self, digest: str, data: bytes) -> None:
        """Write a small blob unless it is there already; a damaged one is replaced.

        Raises:
            StoreError: it cannot be written.
        """
        if not self._holds(digest, data):
            write_atomically(self.blob_path(digest), data, self.temporary())

    def adopt_blob(self, digest: str, file: Path) -> None:
        """Move a finished, durable file of the same filesystem to its place in `blobs/`.

        Raises:
            StoreError: it cannot be moved.
        """
        target = self.blob_path(digest)
        make_folder(target.parent)
        with store_failures(file):
            os.utime(file)  # a starting Ollama prunes nameless blobs of more than an hour
        place(file, target)

    def read_blob(self, digest: str, limit: int = MAX_SMALL_BLOB) -> bytes:
        """Return a small blob of at most `limit` bytes.

        Raises:
            BrokenManifestError: it is missing or too large to be one.
        """
        path = self.blob_path(digest)
        try:
            return read_small(path, limit)
        except OSError as error:
            if error.errno == errno.EFBIG:
                sentence = f"The layer {digest} is too large to be a setting."
                raise BrokenManifestError(sentence) from error
            reason = error.strerror or error
            raise BrokenManifestError(f"The layer {digest} cannot be read: {reason}.") from error

    def models(self) -> list[InstalledModel]:
        """Return every model whose manifest can be read, by name.

        Those behind the bounds of `store.manifest` are left out.

        Raises:
            OversizedStoreError: as `names`.
        """
        found, left = [], Allowance()
        for name in self.names():
            try:
                model, size = self._read(name)
            except BrokenManifestError:
                continue
            if not left.takes(size, len(model.layers)):
                break
            found.append(model)
        return found

    def names(self) -> list[ModelName]:
        """Return the names that have a manifest, readable or not, in order.

        Raises:
            OversizedStoreError: there are more than any store has.
        """
        found = []
        for parts in _below(self.root / "manifests", _PARTS, [MAX_SEEN]):
            name = _name_of(parts)
            if name is not None and os.path.isfile(self.manifest_path(name)):  # noqa: PTH113 - never raises
                found.append(name)
            if len(found) > MAX_MODELS:
                raise OversizedStoreError(f"{self.root} holds more than {MAX_MODELS} models.")
        return found

    def model(self, name: ModelName) -> InstalledModel:
        """Return one model.

        Raises:
            NotInstalledError: there is no manifest of that name.
            BrokenManifestError: the manifest cannot be read.
        """
        return self._read(self.find(name))[0]

    def find(self, name: ModelName) -> ModelName:
        """Return a name as the store spells it; case matters only between two that differ in it.

        Raises:
            NotInstalledError: there is no manifest of that name, or more than one.
            OversizedStoreError: as `names`.
        """
        if os.path.isfile(self.manifest_path(name)):  # noqa: PTH113 - never raises
            return name
        names = self.names()
        found = same_name(name, names)
        if len(found) > 1:
            raise NotInstalledError(
                f"The store {self.root} has no model {name}, but others that differ in case.",
                f"Take one of {some_of([*map(str, found)])}.",
            )
        if not found:
            known = some_of([*map(str, names)]) or "no model at all"
            raise NotInstalledError(
                f"The store {self.root} has no model {name}.", f"It has {known}."
            )
        return found[0]

    def _holds(self, digest: str, data: bytes) -> bool:
        try:
            return read_small(self.blob_path(digest), len(data)) == data
        except OSError:
            return False

    def temporary(self) -> Path:
        """Return a free place for a file that is being written; the caller is `changing` us."""
        return self.own / "tmp" / f"{os.getpid()}-{os.urandom(4).hex()}"

    def _read(self, name: ModelName) -> tuple[InstalledModel, int]:
        """Return a model, and the bytes of its manifest."""
        path = self.manifest_path(name)
        try:
            data = read_small(path, MAX_MANIFEST_BYTES)
            manifest = parse_manifest(data)
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            large = isinstance(error, OSError) and error.errno == errno.EFBIG
            reason = "is too large to be one" if large else "cannot be read"
            raise BrokenManifestError(
                f"The manifest of {name} {reason}.", f"See {path}."
            ) from error
        return InstalledModel(name, manifest.config, manifest.layers, modified), len(data)


def _below(folder: Path, depth: int, left: list[int]) -> Iterator[tuple[str, ...]]:
    """Yield, in order, the path of everything that lies `depth` levels below a folder.

    Links to folders are followed, as Ollama does.

    Args:
        folder: where.
        depth: how many levels.
        left: how many files and folders may still be looked at.

    Raises:
        OversizedStoreError: there are more.
    """
    try:
        names = list_names(folder, left[0] + 1)
    except OSError:  # no folder, or none that we may enter
        return
    left[0] -= len(names)
    if left[0] < 0:
        raise OversizedStoreError(f"{folder} holds more files than any store.")
    for name in names:
        if depth == 1:
            yield (name,)
        else:
            yield from ((name, *rest) for rest in _below(folder / name, depth - 1, left))


def _name_of(parts: tuple[str, ...]) -> ModelName | None:
    host, namespace, model, tag = parts
    try:
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    except InvalidNameError:
        return None


def _nearest(folder: Path) -> Path:
    """Return `folder`, or the first of its parents that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
