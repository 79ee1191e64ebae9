"""What a layer has to be, apart from its digest: a header that loads, JSON, text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import BinaryIO

from dsollama.check.findings import Finding
from dsollama.errors import ShardError
from dsollama.gguf.header import Header, read_header
from dsollama.gguf.loadable import architecture
from dsollama.gguf.merge import SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS
from dsollama.manifest.layers import CONFIG, MODEL, PARAMS, SYSTEM, TEMPLATE
from dsollama.store.store import MAX_JSON

_FIRST_READ = 2**20
_SPLIT_HINT = (
    "Install the model with `dsollama install`, which merges the shards, or merge them with "
    "`llama-gguf-split --merge` and create the model anew."
)
WORDS = {
    MODEL: "weights",
    CONFIG: "config",
    PARAMS: "parameters",
    TEMPLATE: "template",
    SYSTEM: "system prompt",
}
"""What the layers are called; any other one is a `layer`."""


def check_small(media_type: str, data: bytes) -> tuple[str, str] | None:
    """Return (code, sentence) where a small layer cannot be read as what it is.

    Args:
        media_type: of the layer.
        data: all its bytes.
    """
    what = WORDS.get(media_type, "layer")
    if media_type in {CONFIG, PARAMS} and len(data) > MAX_JSON:
        return "not-json", f"The {what} is too large to be one."
    try:
        if media_type in {CONFIG, PARAMS} and not isinstance(json.loads(data), dict):
            return "not-json", f"The {what} is not a JSON object."
        if media_type in {TEMPLATE, SYSTEM}:
            data.decode()
    except UnicodeDecodeError:
        return "not-text", f"The {what} is not UTF-8 text."
    except (ValueError, RecursionError):
        return "not-json", f"The {what} cannot be read as JSON."
    return None


def model_format(config: bytes) -> object:
    """Return what a config says of the weights' format; None where it says nothing."""
    try:
        return json.loads(config).get("model_format")
    except (ValueError, RecursionError, AttributeError):
        return None


def check_weights(path: Path, digest: str) -> Finding | None:
    """Say whether Ollama can load the weights, by their header and their size.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            header = _read(file, os.fstat(file.fileno()).st_size)
            found = _check_split(header, digest)  # first: shard 2 does not say which model it is
            if found is None:
                architecture([header])
        except ShardError as error:
            found = Finding(
                error.code, f"The weights cannot be loaded: {_lower(str(error))}", "", digest
            )
    return found


def _read(file: BinaryIO, size: int) -> Header:
    return read_header(
        lambda start, end: os.pread(file.fileno(), end - start, start), size, _FIRST_READ
    )


def _check_split(header: Header, digest: str) -> Finding | None:
    """A merged file says `split.count` 0 or does not speak of it; llama.cpp also takes 1."""
    count, number = header.get_int(SPLIT_COUNT) or 0, header.get_int(SPLIT_NO) or 0
    if count > 1:
        return Finding(
            "split-shard",
            f"The weights are shard {number + 1} of {count}, and Ollama cannot load shards.",
            _SPLIT_HINT,
            digest,
        )
    claimed, held = header.get_int(SPLIT_TENSORS), len(header.tensors)
    if claimed is not None and claimed != held:
        return Finding(
            "split-metadata",
            f"The weights say that they were merged to {claimed} tensors and hold {held}.",
            _SPLIT_HINT,
            digest,
        )
    return None


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
