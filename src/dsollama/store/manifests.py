"""All manifests of a store at once, those that cannot be read too: who names which blob.

`Store.models` is for showing: what it cannot read, it leaves out. Whoever deletes must know more:
a manifest that cannot be read may name any blob. So everything doubtful counts as unreadable
here, and a digest counts as named wherever in a manifest it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dsollama.errors import InvalidNameError
from dsollama.store.files import read_small
from dsollama.store.names import ModelName, parse_name
from dsollama.store.store import DIGEST, MAX_SMALL_BLOB
from dsollama.store.walk import Seen, printable, walk

_WEIGHTS = "application/vnd.ollama.image.model"
_MENTION = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_DEPTH = 4
"""Folders and file of a manifest's place: HOST/NAMESPACE/NAME/TAG."""


class _Layer(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""


class _Manifest(msgspec.Struct):
    """What Ollama reads; Go writes a model without layers, one of its cloud, as null."""

    config: _Layer
    layers: list[_Layer] | None


@dataclass(frozen=True)
class ManifestFile:
    """A file below `manifests/`.

    Attributes:
        path: where it is.
        name: the model's name; None for a file at a place where Ollama looks for no manifest.
        shown: the name in its shortest form, or the path below the store.
        digests: every digest (`sha256:HEX`) that stands in it.
        weights: those of the layers that hold weights.
        problem: why it cannot be read, as the rest of a sentence; empty where it could.
    """

    path: Path
    name: ModelName | None
    shown: str
    digests: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    problem: str = ""

    def to_json(self) -> dict[str, str]:
        """Return what is to be said of an unreadable one as plain data."""
        return {"name": self.shown, "path": printable(self.path), "problem": self.problem}


def read_manifests(root: Path) -> tuple[ManifestFile, ...]:
    """Read every manifest of the store `root`, in the order of their paths."""
    found = [_read(root, seen) for seen in walk(root / "manifests")]
    return (*(each for each in found if each is not None), *_unknown_folders(root))


def unreadable(manifests: Sequence[ManifestFile]) -> tuple[ManifestFile, ...]:
    """Return those that may name any blob, so that none may be deleted."""
    return tuple(each for each in manifests if each.problem)


def users(manifests: Sequence[ManifestFile]) -> dict[str, list[str]]:
    """Return who names each digest, in their shown form."""
    found: dict[str, list[str]] = {}
    for each in manifests:
        for digest in each.digests:
            found.setdefault(digest, []).append(each.shown)
    return found


def _unknown_folders(root: Path) -> Iterator[ManifestFile]:
    """Yield folders in which an Ollama newer than this dsollama may keep manifests."""
    for path in sorted(root.glob("manifests?*")):
        if not path.is_file():
            problem = "is a folder that dsollama does not know"
            yield ManifestFile(path, None, printable(Path(path.name)), problem=problem)


def _read(root: Path, seen: Seen) -> ManifestFile | None:
    shown = printable(seen.path.relative_to(root))
    name = _name(seen.parts)
    if name is None:
        if seen.problem and len(seen.parts) < _DEPTH:
            # A link to a folder, or one that may not be listed: Ollama may find manifests there.
            return ManifestFile(seen.path, None, shown, problem=seen.problem)
        return _read_stray(seen, shown)
    shown = str(name)
    if seen.problem:
        return ManifestFile(seen.path, name, shown, problem=seen.problem)
    try:
        digests, weights = _named(read_small(seen.path, MAX_SMALL_BLOB, follow=False))
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        return ManifestFile(seen.path, name, shown, problem=problem)
    except (ValueError, RecursionError):  # msgspec's own are ValueErrors
        return ManifestFile(seen.path, name, shown, problem="is not a manifest")
    return ManifestFile(seen.path, name, shown, digests, weights)


def _read_stray(seen: Seen, shown: str) -> ManifestFile | None:
    """A file that Ollama never reads, such as somebody's copy: what it names is kept as well."""
    try:
        text = read_small(seen.path, MAX_SMALL_BLOB, follow=False).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
    digests = _mentioned(text)
    return ManifestFile(seen.path, None, shown, digests) if digests else None


def _name(parts: tuple[str, ...]) -> ModelName | None:
    if len(parts) != _DEPTH:
        return None
    host, namespace, model, tag = parts
    try:
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    except InvalidNameError:
        return None


def _named(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Return all digests of a manifest, and those of its weights.

    Raises:
        ValueError: it is no manifest, or names something that is not a digest.
    """
    value = msgspec.json.decode(data)
    manifest = msgspec.convert(value, _Manifest)
    layers = manifest.layers or []
    for layer in (manifest.config, *layers):
        # Ollama takes an empty digest for "no config".
        if not DIGEST.fullmatch(layer.digest) and (layer.digest or layer is not manifest.config):
            raise ValueError(layer.digest)
    weights = {each.digest for each in layers if each.media_type == _WEIGHTS}
    return _mentioned("\n".join(_texts(value))), frozenset(weights)


def _mentioned(text: str) -> frozenset[str]:
    return frozenset(f"sha256:{each.lower()}" for each in _MENTION.findall(text))


def _texts(value: Any) -> Iterator[str]:
    """Yield every string in a decoded JSON value, keys too."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += (*each.keys(), *each.values())
        elif isinstance(each, list):
            waiting += each
