"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dsollama.settings import Settings


class Merger(StrEnum):
    """How shards become one file."""

    NATIVE = "native"
    LLAMA_GGUF_SPLIT = "llama-gguf-split"


@dataclass(frozen=True)
class InstallRequest:
    """An install as asked for.

    Attributes:
        target: `QUANT` or `hf.co/OWNER/REPO:QUANT`.
        settings: the environment, `--store` already in it.
        model: value of `--model`, or None.
        name: name for Ollama instead of the catalog's, or None.
        variants: template variants; all where empty.
        revision: branch, tag or commit; None for the main branch.
        merger: which merger.
    """

    target: str
    settings: Settings
    model: str | None = None
    name: str | None = None
    variants: tuple[str, ...] = ()
    revision: str | None = None
    merger: Merger = Merger.NATIVE
