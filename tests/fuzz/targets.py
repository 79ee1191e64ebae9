"""What is fuzzed: each target takes any bytes, lets only documented errors pass, and asserts.

`run.py` feeds them by a coverage-guided fuzzer (`make fuzz`), `test_corpus.py` the finds again
without one.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from dsollama.cli.models import describe, details, modelfile_of
from dsollama.errors import (
    BrokenManifestError,
    ForeignShardError,
    MalformedGgufError,
    MalformedModelfileError,
    NotGgufError,
)
from dsollama.gguf.header import MAX_HEADER_BYTES, Header, NeedMoreBytesError, parse_header
from dsollama.gguf.merge import MergedLayout, merge_layout
from dsollama.manifest.modelfile_text import parse_modelfile, write_modelfile
from dsollama.manifest.names import ModelName
from dsollama.store.ledger import LedgerEntry
from dsollama.store.store import Store
from dsollama.transfer import journal

SEPARATOR = b"\xf5NEXT\xf5"
"""Between the files of one input."""

MAX_FILES = 8
FIRST_READ = 64
"""Bytes read of a file at first; small, so that the reading-on is fuzzed as well."""

ZEROS = 2**16
"""How far a file that claims to be larger than the input goes on, with zeros."""

SEGMENTS = (100, 0, 7, 2**40, 1)
"""Sizes of the segments that a journal speaks of, in bytes."""

NAME = ModelName("m", "t")
_MEMORY = Path("/dev/shm")
_KEPT = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
_FOLDER = Path(_KEPT.name)
"""In memory where that can be: a million inputs are a million small files."""

DIGESTS = tuple(f"sha256:{digit * 64}" for digit in "0123")
"""The blobs that a fuzzed manifest can name."""


def gguf(data: bytes) -> None:
    """Shards: each is its claimed size as u64, then its bytes."""
    headers, sizes = [], []
    for part in data.split(SEPARATOR)[:MAX_FILES]:
        size = int.from_bytes(part[:8], "little")
        try:
            header = _read_header(part[8:], size)
        except (MalformedGgufError, NotGgufError):
            continue
        if header is not None:
            _check_header(header, size)
            headers.append(header)
            sizes.append(size)
    if not headers:
        return
    try:
        layout = merge_layout(headers, sizes)
    except (ForeignShardError, MalformedGgufError):
        return
    _check_layout(layout, headers, sizes)


def journal_file(data: bytes) -> None:
    """The journal of an interrupted install: any bytes claim what fits, or nothing."""
    staging = _FOLDER / "staging"
    staging.mkdir(exist_ok=True)
    (staging / journal.JOURNAL).write_bytes(data)
    claims = journal.read_claims(staging, SEGMENTS)
    for number, done in claims.items():
        assert type(number) is int
        assert type(done) is int
        assert 0 <= number < len(SEGMENTS)
        assert 0 <= done <= SEGMENTS[number]
    assert journal.claimed_bytes(staging) >= sum(claims.values())


def ledger(data: bytes) -> None:
    """An entry of the ledger: None, or one that is written and read back alike."""
    book = Store(_FOLDER).ledger
    book.path(DIGESTS[0]).parent.mkdir(parents=True, exist_ok=True)
    book.path(DIGESTS[0]).write_bytes(data)
    entry = book.read(DIGESTS[0])
    assert [each for _, each in book.entries()] == ([] if entry is None else [entry])
    if entry is not None:
        for text in (entry.commit, *entry.prefixes, *(each.sha256 or "" for each in entry.sources)):
            assert set(text) <= set("0123456789abcdef")
        assert msgspec.json.decode(msgspec.json.encode(entry), type=LedgerEntry) == entry


def manifest(data: bytes) -> None:
    """A manifest and the small blobs that it may name, through list, show and modelfile."""
    parts = data.split(SEPARATOR)
    store = Store(_FOLDER)
    path = store.manifest_path(NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parts[0])
    (_FOLDER / "blobs").mkdir(exist_ok=True)
    for digest, blob in zip(DIGESTS, [*parts[1:], b"", b"", b"", b""], strict=False):
        store.blob_path(digest).write_bytes(blob)
    listed = store.models()
    for model in listed:
        json.dumps(describe(store, model))
    try:
        model = store.model(NAME)
    except BrokenManifestError:
        assert listed == []
        return
    assert listed == [model]
    try:
        json.dumps(details(store, model))
        text = modelfile_of(store, model)
    except (BrokenManifestError, MalformedModelfileError):
        return
    assert parse_modelfile(text)


def modelfile(data: bytes) -> None:
    """A Modelfile: what was read is written, and read again alike."""
    try:
        entries = parse_modelfile(data.decode("utf-8", "replace"))
    except MalformedModelfileError:
        return
    text = write_modelfile(entries)
    assert parse_modelfile(text) == entries
    assert write_modelfile(parse_modelfile(text)) == text


def _read_header(file: bytes, size: int) -> Header | None:
    """Read on as install.plan does; None where that would take more than this input can be."""
    end = min(FIRST_READ, size)
    while True:
        buffer = file[:end] + bytes(max(0, end - len(file)))
        try:
            return parse_header(buffer, size)
        except NeedMoreBytesError as need:
            needed = need.size
        assert len(buffer) < needed <= min(size, MAX_HEADER_BYTES)
        if needed > len(file) + ZEROS:
            return None
        end = min(max(needed, 2 * end), size)


def _check_header(header: Header, size: int) -> None:
    assert header.data_start + header.data_size <= size
    assert len(header.raw) <= MAX_HEADER_BYTES
    at = 0
    for entry in header.key_values:
        assert at < entry.start < entry.value_start <= entry.end <= len(header.raw)
        at = entry.start
        header.get_str(entry.key)
        header.get_int(entry.key)
    end = 0
    for tensor in header.tensors:
        assert tensor.offset >= end
        end = tensor.offset + tensor.size


def _check_layout(layout: MergedLayout, headers: list[Header], sizes: list[int]) -> None:
    at = len(layout.header)
    for span in layout.spans:
        assert span.size > 0
        assert span.source == headers[span.file].data_start
        assert span.source + span.size <= sizes[span.file]
        assert at <= span.target < at + 32
        at = span.target + span.size
    assert at <= layout.size < at + 32
    assert layout.header_sha256 == hashlib.sha256(layout.header).hexdigest()
    for offset, size in layout.gaps:
        assert len(layout.header) <= offset < offset + size <= layout.size
    merged = parse_header(layout.header, layout.size)
    assert merged.raw == layout.header
    assert merged.padded_data_size == layout.size - len(layout.header)
    tensors = [tensor for header in headers for tensor in header.tensors]
    assert [(each.name, each.elements, each.kind, each.size) for each in merged.tensors] == [
        (each.name, each.elements, each.kind, each.size) for each in tensors
    ]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gguf": gguf,
    "journal": journal_file,
    "ledger": ledger,
    "manifest": manifest,
    "modelfile": modelfile,
}
