"""What weights have to say of themselves before any engine can load them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsollama.errors import MalformedGgufError
from dsollama.gguf.header import Header

ARCHITECTURE = "general.architecture"

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""llama.cpp b11434 knows some 130 names (LLM_ARCH_NAMES in src/llama-arch.cpp), of small letters,
digits, `-` and `_`; the longest ones have 16 characters."""

_SHOWN = 40


def architecture(headers: Sequence[Header]) -> str:
    """Return what model the weights are of.

    Args:
        headers: of all shards in order, or of the one file.

    Raises:
        MalformedGgufError: they say nothing, or what can be no name; or they hold no weights.
    """
    if not any(tensor.elements for header in headers for tensor in header.tensors):
        raise MalformedGgufError("The GGUF holds no tensors, so it is no model.")
    name = headers[0].get_str(ARCHITECTURE)
    if name is None:
        raise MalformedGgufError(f"The GGUF does not say which model it is ({ARCHITECTURE}).")
    if not _ARCHITECTURE.fullmatch(name):
        shown = repr(name[:_SHOWN]) + ("..." if len(name) > _SHOWN else "")
        raise MalformedGgufError(f"The GGUF's {ARCHITECTURE} is no name of a model: {shown}.")
    return name
