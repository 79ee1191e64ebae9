"""The store: blobs and manifests of one OLLAMA_MODELS folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsollama.errors import (
    BrokenManifestError,
    InvalidNameError,
    NotInstalledError,
)
from dsollama.store.files import make_folder, place, store_failures, write_atomically
from dsollama.store.names import ModelName, parse_name

MAX_SMALL_BLOB = 16 * 2**20
"""Manifests, templates, params and the like are read only up to this size, in bytes."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class InstalledLayer:
    """A layer that a manifest names; `size` is in bytes."""

    media_type: str
    digest: str
    size: int


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

    def staging(self, key: str) -> Path:
        """Folder of the install called `key`."""
        return self.own / "staging" / key

    def blob_path(self, digest: str) -> Path:
        """Place of the blob `sha256:HEX`.

        Raises:
            BrokenManifestError: that is not a digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise BrokenManifestError(f"{digest!r} is not a digest.")
        return self.root / "blobs" / digest.replace(":", "-")

    def manifest_path(self, name: ModelName) -> Path:
        """Place of the manifest of `name`."""
        return self.root / "manifests" / name.path

    def free_bytes(self) -> int:
        """Bytes that this user can still write to the store's filesystem."""
        with store_failures(self.root):
            return shutil.disk_usage(_nearest(self.root)).free

    def require_writable(self) -> None:
        """Raise StoreNotWritableError unless a folder can be made in the store; makes none."""
        with store_failures(self.root):
            folders = (self.root / name for name in ("blobs", "manifests", ".dsollama"))
            for each in (_nearest(self.root), *folders):
                if each.exists() and not _writable(each):
                    raise PermissionError(errno.EACCES, f"{each} is not writable for this user")

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the blob is there with its size; its bytes are not read."""
        try:
            return self.blob_path(digest).stat().st_size == size
        except OSError:
            return False

    def put_blob(self, digest: str, data: bytes) -> None:
        """Write a small blob unless it is there already.

        Raises:
            StoreError: it cannot be written.
        """
        if not self.has_blob(digest, len(data)):
            write_atomically(self.blob_path(digest), data, self._temporary())

    def adopt_blob(self, digest: str, file: Path) -> None:
        """Move a finished, durable file of the same filesystem to its place in `blobs/`.

        Raises:
            StoreError: it cannot be moved.
        """
        target = self.blob_path(digest)
        make_folder(target.parent)
        place(file, target)

    def put_manifests(self, manifests: Mapping[ModelName, bytes]) -> None:
        """Write manifests, all or none: a failure puts back what was there.

        Raises:
            StoreError: one cannot be written.
        """
        before: dict[Path, bytes | None] = {}
        try:
            for name, data in manifests.items():
                path = self.manifest_path(name)
                with store_failures(path):
                    before[path] = path.read_bytes() if path.is_file() else None
                write_atomically(path, data, self._temporary())
        except BaseException:
            for path, data_before in before.items():
                self._put_back(path, data_before)
            raise

    def read_blob(self, digest: str) -> bytes:
        """Return a small blob.

        Raises:
            BrokenManifestError: it is missing or too large to be one.
        """
        path = self.blob_path(digest)
        try:
            if path.stat().st_size > MAX_SMALL_BLOB:
                raise BrokenManifestError(f"The layer {digest} is too large to be a setting.")
            return path.read_bytes()
        except OSError as error:
            raise BrokenManifestError(f"The layer {digest} cannot be read: {error}.") from error

    def models(self) -> list[InstalledModel]:
        """Return every model whose manifest can be read, by name."""
        found = []
        for path in sorted((self.root / "manifests").glob("*/*/*/*")):
            name = _name_of(path)
            if name is not None and path.is_file():
                try:
                    found.append(self._read(name))
                except BrokenManifestError:
                    continue
        return found

    def model(self, name: ModelName) -> InstalledModel:
        """Return one model.

        Raises:
            NotInstalledError: there is no manifest of that name.
            BrokenManifestError: the manifest cannot be read.
        """
        if not os.path.isfile(self.manifest_path(name)):  # noqa: PTH113 - never raises
            known = ", ".join(str(each.name) for each in self.models()) or "no model at all"
            raise NotInstalledError(
                f"The store {self.root} has no model {name}.", f"It has {known}."
            )
        return self._read(name)

    def write_ledger(self, digest: str, entry: Mapping[str, Any]) -> None:
        """Keep where an installed blob came from.

        Raises:
            StoreError: it cannot be written.
        """
        path = self._ledger(digest)
        data = json.dumps(entry, indent=1, sort_keys=True).encode() + b"\n"
        write_atomically(path, data, self._temporary())

    def write_modelfile(self, name: ModelName, text: str) -> None:
        """Keep the Modelfile that says the same as the manifest of `name`, for people.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.own / "modelfiles" / name.path
        write_atomically(path, text.encode(), self._temporary())

    def ledger(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Yield (digest, entry) of everything dsollama has installed; unreadable ones are left."""
        for path in sorted((self.own / "ledger").glob("*.json")):
            try:
                entry = json.loads(path.read_bytes()[:MAX_SMALL_BLOB])
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield f"sha256:{path.stem}", entry

    def ledger_entry(self, digest: str) -> Mapping[str, Any] | None:
        """Return what is known of an installed blob's origin."""
        return next((entry for known, entry in self.ledger() if known == digest), None)

    def _ledger(self, digest: str) -> Path:
        return self.own / "ledger" / f"{digest.removeprefix('sha256:')}.json"

    def _temporary(self) -> Path:
        return self.own / "tmp" / f"{os.getpid()}-{os.urandom(4).hex()}"

    def _put_back(self, path: Path, data: bytes | None) -> None:
        if data is None:
            with contextlib.suppress(OSError):  # there may be nothing, or no way to it
                path.unlink()
        else:
            write_atomically(path, data, self._temporary())

    def _read(self, name: ModelName) -> InstalledModel:
        path = self.manifest_path(name)
        try:
            if path.stat().st_size > MAX_SMALL_BLOB:
                raise BrokenManifestError(f"The manifest of {name} is too large to be one.")
            manifest = json.loads(path.read_bytes())
            return InstalledModel(
                name,
                _layer(manifest["config"]),
                tuple(_layer(each) for each in manifest["layers"]),
                datetime.fromtimestamp(path.stat().st_mtime, UTC),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BrokenManifestError(
                f"The manifest of {name} cannot be read.", f"See {path}."
            ) from error


def _layer(entry: Mapping[str, Any]) -> InstalledLayer:
    return InstalledLayer(str(entry["mediaType"]), str(entry["digest"]), int(entry["size"]))


def _name_of(manifest: Path) -> ModelName | None:
    host, namespace, model, tag = manifest.parts[-4:]
    try:
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    except InvalidNameError:
        return None


def _nearest(folder: Path) -> Path:
    """Return `folder`, or the first of its parents that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _writable(folder: Path) -> bool:
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and not read_only
