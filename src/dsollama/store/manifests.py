"""All manifests of a store at once, those that cannot be read too: who names which blob.

`Store.models` is for showing: what it cannot read, it leaves out. Whoever deletes must know more:
a manifest that cannot be read may name any blob. So everything doubtful counts as unreadable
here, and a digest counts as named wherever in a manifest it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from dsollama.errors import InvalidNameError
from dsollama.manifest.manifest import MAX_MANIFEST_BYTES, Allowance, mentions
from dsollama.manifest.names import ModelName, parse_name
from dsollama.store.files import read_small
from dsollama.store.store import DIGEST
from dsollama.store.walk import Seen, printable, walk

_WEIGHTS = "application/vnd.ollama.image.model"
_MAX_FOLDERS = 100
_TOO_MUCH = "is not read: the manifests before it have more than those of any real store"
_DEPTH = 4
"""Folders and file of a manifest's place: HOST/NAMESPACE/NAME/TAG."""


class _Layer(msgspec.Struct, rename="camel", gc=False):
    digest: str
    media_type: str = ""


class _Manifest(msgspec.Struct):
    """What Ollama reads; Go writes a model without layers, one of its cloud, as null."""

    config: _Layer
    layers: list[_Layer] | None


@dataclass(frozen=True, slots=True)
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
    """Read every manifest of the store `root`, in the order of their paths.

    What the bounds of `store.manifest` and `store.walk` leave out counts as unreadable.
    """
    reader = _Reader(root)
    found = [reader.read(seen) for seen in walk(root / "manifests")]
    return (*(each for each in found if each is not None), *_unknown_folders(root))


def unreadable(manifests: Sequence[ManifestFile]) -> tuple[ManifestFile, ...]:
    """Return those that may name any blob, so that none may be deleted."""
    return tuple(each for each in manifests if each.problem)


def named(manifests: Sequence[ManifestFile]) -> set[str]:
    """Return every digest that a manifest names."""
    return {digest for each in manifests for digest in each.digests}


def users(manifests: Sequence[ManifestFile], digests: Collection[str]) -> dict[str, list[str]]:
    """Return who names each of these digests, in their shown form."""
    wanted = frozenset(digests)
    found: dict[str, list[str]] = {}
    for each in manifests:
        for digest in wanted & each.digests:
            found.setdefault(digest, []).append(each.shown)
    return found


def _unknown_folders(root: Path) -> Iterator[ManifestFile]:
    """Yield folders in which an Ollama newer than this dsollama may keep manifests."""
    for path in sorted(islice(root.glob("manifests?*"), _MAX_FOLDERS)):
        if not path.is_file():
            problem = "is a folder that dsollama does not know"
            yield ManifestFile(path, None, printable(Path(path.name)), problem=problem)


class _Reader:
    """Reads the manifests of a store; what stands in many of them is kept once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._left = Allowance()
        self._known: dict[str, str] = {}
        self._same: dict[frozenset[str], frozenset[str]] = {}

    def read(self, seen: Seen) -> ManifestFile | None:
        """Read one file below `manifests/`; None where it names nothing that counts."""
        shown = printable(seen.path.relative_to(self._root))
        name = _name(seen.parts)
        if name is None:
            if seen.problem and len(seen.parts) < _DEPTH:
                # A link to a folder, or one that may not be listed: Ollama may find some there.
                return ManifestFile(seen.path, None, shown, problem=seen.problem)
            return self._read_stray(seen, shown)
        problem, digests, weights = self._contents(seen)
        return ManifestFile(seen.path, name, str(name), digests, weights, problem)

    def _contents(self, seen: Seen) -> tuple[str, frozenset[str], frozenset[str]]:
        """Return what is wrong with a manifest, or all its digests and those of its weights."""
        problem, digests, weights = seen.problem, set[str](), set[str]()
        if self._left.is_spent:
            problem = problem or _TOO_MUCH
        try:
            if not problem:
                data = read_small(seen.path, MAX_MANIFEST_BYTES, follow=False)
                weights, digests = _weights(data), mentions(data)
                problem = "" if self._left.takes(len(data), len(digests)) else _TOO_MUCH
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except (ValueError, RecursionError):  # msgspec's own are ValueErrors
            problem = "is not a manifest"
        if problem:
            digests, weights = set(), set()
        return problem, self._kept(digests), self._kept(weights)

    def _read_stray(self, seen: Seen, shown: str) -> ManifestFile | None:
        """A file that Ollama never reads, such as somebody's copy: what it names is kept, too."""
        if self._left.is_spent:
            return None
        try:
            data = read_small(seen.path, MAX_MANIFEST_BYTES, follow=False)
        except OSError:
            return None
        digests = mentions(data)
        if not self._left.takes(len(data), len(digests)):
            return ManifestFile(seen.path, None, shown, problem=_TOO_MUCH)
        return ManifestFile(seen.path, None, shown, self._kept(digests)) if digests else None

    def _kept(self, digests: Collection[str]) -> frozenset[str]:
        kept = frozenset(self._known.setdefault(each, each) for each in digests)
        return self._same.setdefault(kept, kept)


def _name(parts: tuple[str, ...]) -> ModelName | None:
    if len(parts) != _DEPTH:
        return None
    host, namespace, model, tag = parts
    try:
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    except InvalidNameError:
        return None


def _weights(data: bytes) -> set[str]:
    """Return the digests of a manifest's weights.

    Raises:
        ValueError: it is no manifest, or names something that is not a digest.
    """
    manifest = msgspec.json.decode(data, type=_Manifest)
    layers = manifest.layers or []
    for layer in (manifest.config, *layers):
        # Ollama takes an empty digest for "no config".
        if not DIGEST.fullmatch(layer.digest) and (layer.digest or layer is not manifest.config):
            raise ValueError(layer.digest)
    return {each.digest for each in layers if each.media_type == _WEIGHTS}
