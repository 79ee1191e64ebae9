"""A merged file that is there already: its digests, and whether it is what the shards make.

Each span of it is digested together with the header of its shard, so the digest that comes out is
the shard's. Nothing else has to be believed: not the program that wrote it, nor the shards' files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dsollama.errors import WrongMergeError
from dsollama.events import BytesMoved, Listener
from dsollama.gguf.header import Header
from dsollama.gguf.merge import MergedLayout
from dsollama.span import Span
from dsollama.store.files import store_failures
from dsollama.transfer.digests import BLOCK_BYTES, DigestPipeline, Digests, rotating_buffers
from dsollama.transfer.region import CELL_BYTES
from dsollama.transfer.transfer import REPORT_SECONDS

_HINT = (
    "The shards are kept. Take the program of another llama.cpp (LLAMA_GGUF_SPLIT=PATH) and run "
    "the same command again, or leave out `--merger`: dsollama's own merge needs no program."
)


def require_merged(
    path: Path,
    layout: MergedLayout,
    headers: Sequence[Header],
    shards: Sequence[str],
    gaps: Mapping[int, bytes],
    listener: Listener,
) -> Digests:
    """Make what a program merged durable, and return its digests.

    Args:
        path: what it wrote.
        layout: what it should have written.
        headers: of all shards.
        shards: digests of all shards as they were verified, in hex.
        gaps: by offset in the merged file, what a shard has where the merged file has zeros.
        listener: hears of progress.

    Raises:
        WrongMergeError: it wrote something else.
        StoreError: it cannot be read.
    """
    with store_failures(path), _opened(path) as file:
        os.fsync(file)
        found = os.fstat(file).st_size
        if found != layout.size:
            raise _wrong(f"{found} bytes instead of {layout.size}")
        if os.pread(file, len(layout.header), 0) != layout.header:
            raise _wrong("another header than the shards' headers make")
        _require_zeros(file, layout)
        heads = {index: header.raw for index, header in enumerate(headers)}
        digests = _digest(file, layout.spans, heads, layout.size, gaps, listener)
    for span, digest in zip(layout.spans, digests.shards, strict=True):
        if digest != shards[span.file]:
            raise _wrong(f"other bytes than those of shard {span.file + 1} of {len(shards)}")
    return digests


def digest_merged(
    path: Path, spans: Sequence[Span], heads: Mapping[int, bytes], size: int, listener: Listener
) -> Digests:
    """Digest a merged file, and each shard that it was made of.

    Args:
        path: the file.
        spans: where the shards are in it; none where only the whole counts.
        heads: by the shard's number, what it has before its span.
        size: of the file, in bytes.
        listener: hears of progress.

    Raises:
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest(handle, spans, heads, size, {}, listener)
    finally:
        os.close(handle)


def shards_gaps(layout: MergedLayout, files: Mapping[int, Path]) -> dict[int, bytes]:
    """Return what the shards' files have in the layout's gaps, by offset in the merged file.

    llama-gguf-split writes zeros there; a gap that is zero in the shard, too, is left out.
    """
    found = {}
    for span in layout.spans:
        inside = [gap for gap in layout.gaps if 0 <= gap[0] - span.target < span.size]
        with store_failures(files[span.file]), _opened(files[span.file]) as file:
            for offset, size in inside:
                data = os.pread(file, size, offset - span.target + span.source)
                if data.strip(b"\0"):
                    found[offset] = data
    return found


def _wrong(what: str) -> WrongMergeError:
    return WrongMergeError(f"llama-gguf-split ended well, but wrote {what}.", _HINT)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file; a link in its place is not followed, a pipe not waited for."""
    if path.is_symlink():
        raise _wrong("a link")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _wrong("something that is no file")
        yield handle
    finally:
        os.close(handle)


def _require_zeros(file: int, layout: MergedLayout) -> None:
    """The padding in the spans, between them and at the end is zero."""
    ends = [len(layout.header), *(span.target + span.size for span in layout.spans)]
    starts = [*(span.target for span in layout.spans), layout.size]
    between = [(end, start - end) for end, start in zip(ends, starts, strict=True)]
    for offset, size in (*layout.gaps, *between):
        if os.pread(file, size, offset) != bytes(size):
            raise _wrong(f"padding at byte {offset} that is not zero")


def _digest(
    file: int,
    spans: Sequence[Span],
    heads: Mapping[int, bytes],
    size: int,
    gaps: Mapping[int, bytes],
    listener: Listener,
) -> Digests:
    whole = hashlib.sha256()
    shards, at = [], 0
    with DigestPipeline() as pipeline:
        reader = _Reader(file, size, pipeline, listener)
        for span in spans:
            own, end = hashlib.sha256(heads[span.file]), span.target + span.size
            reader.feed([whole], at, span.target)
            at = span.target
            for gap in sorted(gap for gap in gaps if span.target <= gap < end):
                reader.feed([whole, own], at, gap)
                at = gap + len(gaps[gap])
                reader.feed([whole], gap, at)
                own.update(gaps[gap])
            reader.feed([whole, own], at, end)
            at = end
            shards.append(own.hexdigest())
        reader.feed([whole], at, size)
    return Digests(tuple(shards), whole.hexdigest(), (*reader.prefixes, whole.hexdigest()))


class _Reader:
    """Feeds ranges of an open file, one after another, to digests."""

    def __init__(self, file: int, size: int, pipeline: DigestPipeline, listener: Listener) -> None:
        self._file, self._size = file, size
        self._pipeline = pipeline
        self._buffers = rotating_buffers(CELL_BYTES)
        self._listener = listener
        self._told = time.monotonic()
        self.prefixes: list[str] = []

    def feed(self, digests: Sequence[hashlib._Hash], start: int, end: int) -> None:
        """Let the digests take in bytes `start` to `end`; the first one is the whole file's."""
        at = start
        while at < end:
            view = next(self._buffers)[: min(end - at, CELL_BYTES - at % CELL_BYTES)]
            count = os.preadv(self._file, [view], at)
            if not count:
                raise OSError(errno.EIO, "it becomes shorter while it is read")
            at += count
            self._pipeline.feed(digests, view[:count], partial(self._tell, at))
            if at % BLOCK_BYTES == 0 and at < self._size:
                self._pipeline.mark(0, digests[0], self.prefixes.append)
        self._pipeline.finish()

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told >= REPORT_SECONDS or done == self._size:
            self._told = now
            self._listener(BytesMoved("digest", done, self._size, 0, 1, 1))
