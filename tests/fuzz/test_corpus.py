"""The fuzzer's finds again, without a fuzzer: no crash, bounded memory, no hang.

`make fuzz` looks for new ones; tests/fuzz/README.md says how they come here.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsollama.manifest.modelfile_text import MAX_MODELFILE
from dsollama.store.ledger import MAX_ENTRY_BYTES
from dsollama.transfer.journal import MAX_JOURNAL_BYTES
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
MEMORY = 16 * 2**20
"""Bytes that Python may take beside the input, for inputs of some kilobytes."""

SECONDS = 2.0
"""Of the processor, for an input that takes some milliseconds: other work does not count."""


@pytest.fixture
def memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_find_is_bounded(path: Path) -> None:
    data = path.read_bytes()
    tracemalloc.reset_peak()
    began = time.process_time()
    TARGETS[path.parent.name](data)
    assert time.process_time() - began < SECONDS
    assert tracemalloc.get_traced_memory()[1] < MEMORY


def test_the_corpus_is_small_and_has_every_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert len(FILES) < 200
    assert sum(path.stat().st_size for path in FILES) < 1_000_000


DEEP = 100_000
LARGE: dict[str, tuple[str, bytes]] = {
    "deep journal": ("journal", b"[" * DEEP),
    "journal of a long number": ("journal", b'{"version":' + b"9" * 1_000_000 + b"}"),
    "journal as long as is read": ("journal", b"[]" + b" " * (MAX_JOURNAL_BYTES - 2)),
    "journal longer than is read": ("journal", b" " * (MAX_JOURNAL_BYTES + 1)),
    "deep ledger": ("ledger", b"[" * DEEP),
    "ledger of skipped values": ("ledger", b'{"x":[' + b"[],"* (MAX_ENTRY_BYTES // 4) + b"[]]}"),
    "deep manifest": ("manifest", b'{"config":' * DEEP),
    "Modelfile of open lines": ("modelfile", b'FROM x\nSYSTEM """' + b"\n" * (MAX_MODELFILE - 20)),
    "Modelfile of many quotes": ("modelfile", b'FROM x\nSYSTEM """\n' + b'"x\n' * 1_000_000),
    "Modelfile of one long word": ("modelfile", b"FROM " + b"x" * (MAX_MODELFILE - 20)),
    "Modelfile of comments": ("modelfile", b"FROM x\n" + b"#\n" * 500_000),
    "headers without an end": ("gguf", b"\xff" * 8 + b"GGUF\x03\0\0\0" + b"\0" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE)
def test_what_grows_does_not_hang(case: str) -> None:
    """Larger than the fuzzer's inputs: time must grow with the size, not with its square."""
    target, data = LARGE[case]
    began = time.process_time()
    TARGETS[target](data)
    assert time.process_time() - began < 30
