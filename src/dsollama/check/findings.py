"""What `verify` says of a store: findings by blob and by model, and a report of them all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: stable, for scripts (docs/verify.md lists them).
        message: one sentence.
        hint: what to do about it.
        blob: `sha256:HEX` of the layer that it is about; empty for a manifest.
    """

    code: str
    message: str
    hint: str
    blob: str = ""


@dataclass(frozen=True)
class Range:
    """Bytes `start` to `end` (exclusive) of a blob."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class BlobReport:
    """What was found of one blob.

    Attributes:
        digest: `sha256:HEX`.
        size: bytes on the disk after the check; None where the blob is missing.
        hashed: bytes that were read and digested; 0 with --quick.
        findings: what is wrong with it now.
        repaired: whether it was wrong and is right now.
        mended: what a repair replaced.
        fetched: bytes that the repair had from the Hub.
        right: whether its bytes are known to have its digest.
    """

    digest: str
    size: int | None
    hashed: int = 0
    findings: tuple[Finding, ...] = ()
    repaired: bool = False
    mended: tuple[Range, ...] = ()
    fetched: int = 0
    right: bool = False


@dataclass(frozen=True)
class ModelReport:
    """What was found of one model, its blobs included.

    Attributes:
        name: as the store spells it.
        findings: what is wrong.
        repaired: whether something was wrong and is right now.
        unchecked: where the weights are what was installed, but that was never compared with a
            published digest: a sentence that says so; else empty.
    """

    name: str
    findings: tuple[Finding, ...]
    repaired: bool
    unchecked: str = ""


@dataclass(frozen=True)
class StoreReport:
    """What was found in a store.

    Attributes:
        store: the OLLAMA_MODELS folder.
        quick: whether the weights were left unread.
        models: by name.
        blobs: each once, however many models share it.
    """

    store: Path
    quick: bool
    models: tuple[ModelReport, ...]
    blobs: tuple[BlobReport, ...]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not any(model.findings for model in self.models)

    @property
    def hashed(self) -> int:
        """Bytes that were read and digested."""
        return sum(blob.hashed for blob in self.blobs)

    @property
    def fetched(self) -> int:
        """Bytes that came from the Hub."""
        return sum(blob.fetched for blob in self.blobs)

    @property
    def mended(self) -> int:
        """Bytes that a repair replaced."""
        return sum(each.size for blob in self.blobs for each in blob.mended)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; sizes in bytes."""
        return {
            "store": str(self.store),
            "right": self.right,
            "quick": self.quick,
            "models": [asdict(each) for each in self.models],
            "blobs": [asdict(each) for each in self.blobs],
            "bytes_hashed": self.hashed,
            "bytes_mended": self.mended,
            "bytes_downloaded": self.fetched,
        }
