"""The ledger: written, read back, and of no harm when it is forged."""

import json
import os
from pathlib import Path

import pytest
from msgspec import structs

from dsollama.span import Span
from dsollama.store.ledger import MAX_ENTRY_BYTES, Ledger, LedgerEntry, LedgerFile

ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
HEX = "0" * 64
ENTRY = LedgerEntry(
    size=10,
    endpoint="http://127.0.0.1:1",
    repository="o/ü",
    commit="1" * 40,
    quant="UD-Q2_K_XL",
    sources=(LedgerFile("a/b.gguf", 12, HEX),),
    spans=(Span(0, 2, 0, 10),),
    block=4,
    prefixes=(HEX, HEX, HEX),
    names=("a:b",),
    installed="2026-01-01T00:00:00+00:00",
    dsollama="0.1.0",
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", tmp_path / "tmp")


def test_it_gives_back_what_was_written(ledger: Ledger) -> None:
    ledger.write(ABC, structs.replace(ENTRY, names=()))
    ledger.write(ABC, ENTRY)
    assert ledger.read(ABC) == ENTRY
    assert list(ledger.entries()) == [(ABC, ENTRY)]
    assert ledger.read("sha256:" + HEX) is None
    ledger.remove(ABC)
    ledger.remove(ABC)
    assert ledger.read(ABC) is None


def forged(**changes: object) -> bytes:
    data = {
        "size": 10, "endpoint": "e", "repository": "r", "commit": "1" * 40, "quant": "q",
        "sources": [{"path": "p", "size": 1, "sha256": HEX}],
        "spans": [{"file": 0, "source": 0, "target": 0, "size": 1}], "block": 4,
        "prefixes": [HEX], "names": ["n"], "installed": "i", "dsollama": "d", "version": 2,
    }  # fmt: skip
    return json.dumps(data | changes).encode()


def test_the_unchanged_forgery_is_read(ledger: Ledger) -> None:
    ledger.path(ABC).parent.mkdir()
    ledger.path(ABC).write_bytes(forged())
    assert ledger.read(ABC) is not None


BAD = {
    "empty": b"", "a list": b"[]", "no text": b"\xff", "cut off": b"{", "deep": b"[" * 200_000,
    "large": b" " * (MAX_ENTRY_BYTES + 1), "negative": forged(size=-1), "text": forged(size="10"),
    "fraction": forged(size=1.5), "other version": forged(version=3), "no block": forged(block=0),
    "a path as commit": forged(commit="../../etc"), "no digest": forged(prefixes=["x"]),
    "one name": forged(names="n"), "long": forged(quant="q" * 5000),
    "forged source": forged(sources=[{"path": "p", "size": 1, "sha256": "x"}]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_as_good_as_absent(ledger: Ledger, case: str) -> None:
    ledger.write("sha256:" + HEX, ENTRY)
    ledger.path(ABC).write_bytes(BAD[case])
    assert ledger.read(ABC) is None
    assert list(ledger.entries()) == [("sha256:" + HEX, ENTRY)]


@pytest.mark.parametrize("kind", ["link", "pipe", "endless"])
def test_what_is_no_plain_file_is_not_read(ledger: Ledger, kind: str, tmp_path: Path) -> None:
    """A pipe would wait for ever, and /dev/zero has no end."""
    ledger.write(ABC, ENTRY)
    ledger.path(ABC).rename(tmp_path / "elsewhere")
    if kind == "pipe":
        os.mkfifo(ledger.path(ABC))
    else:
        target = tmp_path / "elsewhere" if kind == "link" else "/dev/zero"
        ledger.path(ABC).symlink_to(target)
    assert ledger.read(ABC) is None
