"""The bytes of a blob once more, from where its ledger entry says that they came from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from dsollama.check.findings import Range
from dsollama.gguf.header import MAX_HEADER_BYTES, Header, read_header
from dsollama.gguf.merge import merge_layout
from dsollama.sources.source import Reader, offline_error
from dsollama.span import Span
from dsollama.store.ledger import LedgerEntry, LedgerFile

_FIRST_READ = 2**16
_ZEROS = bytes(2**20)


class BlobSource:
    """Gives any range of the blob: pieces of the shards, the merged header, zero padding.

    Nothing here is proved; whoever takes the bytes compares their digest.
    """

    def __init__(self, entry: LedgerEntry, reader: Reader, *, offline: bool = False) -> None:
        """Take `entry` for what it says, and read through `reader` unless `offline`."""
        self._entry = entry
        self._reader = reader
        self._offline = offline
        self.fetched = 0

    def stream(self, wanted: Range) -> Iterator[bytes]:
        """Yield the bytes of `wanted` in chunks of at most 1 MiB.

        Raises:
            HubError: the Hub does not give them.
            ShardError: the shards' headers do not make a merged one.
        """
        at = wanted.start
        for span in self._entry.spans:
            start, end = max(at, span.target), min(wanted.end, span.target + span.size)
            if start < end:
                yield from self._rebuilt(Range(at, start))
                yield from self._shard(span, Range(start, end))
                at = end
        yield from self._rebuilt(Range(at, wanted.end))

    def _shard(self, span: Span, wanted: Range) -> Iterator[bytes]:
        source, shift = self._entry.sources[span.file], span.source - span.target
        yield from self._fetch(source, wanted.start + shift, wanted.end + shift)

    def _fetch(self, source: LedgerFile, start: int, end: int) -> Iterator[bytes]:
        if self._offline:
            raise offline_error("the Hub is needed for the repair")
        with self._reader.open(source.path, start, end, source.size) as stream:
            while start < end:
                buffer = memoryview(bytearray(min(len(_ZEROS), end - start)))
                count = stream.readinto(buffer)
                self.fetched += count
                start += count
                yield bytes(buffer[:count])

    def _rebuilt(self, wanted: Range) -> Iterator[bytes]:
        """Yield what no shard has as it stands: the merged header, then zeros."""
        at = wanted.start
        if at < min(wanted.end, self._entry.spans[0].target):
            head = self._header[at : wanted.end]
            yield head
            at += len(head)
        while at < wanted.end:
            zeros = _ZEROS[: wanted.end - at]
            yield zeros
            at += len(zeros)

    @cached_property
    def _header(self) -> bytes:
        sources = self._entry.sources
        # A shard's piece begins where its header ends: so long are they, and no more is fetched.
        spans = reversed(self._entry.spans)  # the first one of a file counts
        ends = {span.file: min(span.source, MAX_HEADER_BYTES) for span in spans}
        headers = [
            self._shard_header(source, ends.get(index, _FIRST_READ))
            for index, source in enumerate(sources)
        ]
        return merge_layout(headers, [source.size for source in sources]).header

    def _shard_header(self, source: LedgerFile, first: int) -> Header:
        return read_header(
            lambda start, end: b"".join(self._fetch(source, start, end)), source.size, first
        )
