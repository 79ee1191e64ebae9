"""Which block of a blob is bad: its digest is compared with a known one at every block's end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from dsollama.check.findings import Range
from dsollama.check.reading import BlobReader
from dsollama.store.ledger import LedgerEntry


@dataclass(frozen=True)
class Chain:
    """What a blob's digest must be at the end of each block, the last one at the blob's end.

    Attributes:
        size: bytes of the blob.
        block: bytes of a block.
        prefixes: in hex.
        known: whether the blocks are the ledger's; else the whole blob is one.
    """

    size: int
    block: int
    prefixes: tuple[str, ...]
    known: bool

    def blocks(self) -> Iterator[tuple[Range, str]]:
        """Yield each block and the digest of the blob up to its end."""
        for index, prefix in enumerate(self.prefixes):
            start = index * self.block
            yield Range(start, min(start + self.block, self.size)), prefix


def chain_of(digest: str, entry: LedgerEntry | None, size: int) -> Chain:
    """Return the ledger's chain if it can be one of this blob, else one of a single block.

    Args:
        digest: `sha256:HEX`, which decides in the end.
        entry: the ledger's, if it has one.
        size: bytes that the blob should have, for all that is known without the ledger.
    """
    name = digest.removeprefix("sha256:")
    if entry is not None and entry.prefixes and entry.prefixes[-1] == name:
        count = -(-entry.size // entry.block)
        if count == len(entry.prefixes):
            return Chain(entry.size, entry.block, entry.prefixes, known=True)
    return Chain(max(size, 0), max(size, 1), (name,), known=False)


def is_mendable(entry: LedgerEntry) -> bool:
    """Whether the entry says where the blob's bytes can be had; a forged one may not add up."""
    for span in entry.spans:
        if span.file >= len(entry.sources) or span.target + span.size > entry.size:
            return False
        if span.source + span.size > entry.sources[span.file].size:
            return False
    in_order = all(one.target + one.size <= two.target for one, two in pairwise(entry.spans))
    return bool(entry.listed and entry.prefixes and entry.spans and in_order)


class Mender(Protocol):
    """Gets a bad block again."""

    def mend(self, block: Range, before: hashlib._Hash, prefix: str) -> hashlib._Hash | None:
        """Return the digest's state behind the right block, or None where it cannot be had."""


@dataclass(frozen=True)
class Scan:
    """What one pass over a blob found.

    Attributes:
        whole: the file as it lies there has the digest.
        within: its first `Chain.size` bytes have it, with what was mended.
        bad: the first block that is bad and was not mended.
    """

    whole: bool
    within: bool
    bad: Range | None


def scan(reader: BlobReader, actual: int, chain: Chain, mender: Mender | None) -> Scan:
    """Digest a file of `actual` bytes once, and have bad blocks mended on the way.

    After a bad block that is not mended no later one can be told: the digests go on from the
    file's own bytes, only to know whether the chain was wrong and the file is right.

    Raises:
        OSError: the disk does not give the bytes.
        DsollamaError: what the mender raises.
    """
    name = chain.prefixes[-1]
    digest = hashlib.sha256()
    bad: Range | None = None
    mended = False
    for block, prefix in chain.blocks():
        before = digest.copy()
        reader.feed(digest, block.start, min(block.end, actual))
        if bad is None and (block.end > actual or digest.hexdigest() != prefix):
            better = mender.mend(block, before, prefix) if mender else None
            if better is None:
                bad = block
            else:
                digest, mended = better, True
    within = digest.hexdigest() == name and (actual >= chain.size or bad is None)
    if actual > chain.size and not within and not mended:
        reader.feed(digest, chain.size, actual)
    whole = digest.hexdigest() == name and not mended and not (within and actual > chain.size)
    return Scan(whole, within, bad)
