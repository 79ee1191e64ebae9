"""One manifest: how large it may be, and what stands in it.

Ollama itself reads a manifest of any size. Those of GGUF models have a kilobyte. The largest are
those of models whose tensors are a layer each (safetensors): 200 to 250 bytes a layer.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

MAX_MANIFEST_BYTES = 4 * 2**20
"""Some 17,000 layers. As objects the worst JSON of this size has 60 MB."""

MAX_ALL_BYTES, MAX_ALL_LAYERS = 64 * 2**20, 300_000
"""Of all manifests of a store together: 20,000 models have 20 MB and 120,000 layers."""

MAX_SIZE = 2**63 - 1
"""Largest size of a layer, in bytes; Go has it as an int64."""

_MENTION = re.compile(rb"sha256[:-]([0-9a-fA-F]{64})")
_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class InstalledLayer(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A layer that a manifest names; `size` is in bytes."""

    media_type: str
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]


class Manifest(msgspec.Struct, frozen=True):
    """What a manifest says of a model that is to be shown or checked."""

    config: InstalledLayer
    layers: tuple[InstalledLayer, ...]


class Allowance:
    """How much of all manifests of a store may still be read."""

    def __init__(self) -> None:
        self._bytes = MAX_ALL_BYTES
        self._layers = MAX_ALL_LAYERS

    def takes(self, size: int, layers: int) -> bool:
        """Whether there is room for one more of `size` bytes and so many layers; it is taken."""
        self._bytes -= size
        self._layers -= layers
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be read."""
        return self._bytes < 0 or self._layers < 0


def parse_manifest(data: bytes) -> Manifest:
    """Return what a manifest says.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    return msgspec.json.decode(data, type=Manifest)  # msgspec's own errors are ValueErrors


def mentions(data: bytes) -> set[str]:
    """Return every digest (`sha256:HEX`) that stands anywhere in a file, escaped as JSON or not.

    Looking at the bytes costs no memory, where objects would cost 40 times the file.
    """
    found = _MENTION.findall(data)
    if b"\\u00" in data:
        plain = _ESCAPE.sub(lambda code: bytes.fromhex(code[1].decode()), data)
        found += _MENTION.findall(plain)
    return {f"sha256:{each.decode().lower()}" for each in found}
