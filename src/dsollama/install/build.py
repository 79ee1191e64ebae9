"""Making the merged file of a plan, by either merger, in the staging folder of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsollama.errors import (
    CorruptShardError,
    InterruptedByUserError,
    NotEnoughDiskError,
)
from dsollama.events import Listener, ShardVerified, StepStarted
from dsollama.gguf import split_program
from dsollama.gguf.shards import shard_file_name
from dsollama.install.consume import MAX_CONNECTIONS, max_ahead
from dsollama.install.merged import require_merged, shards_gaps
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.proof import prove
from dsollama.install.recheck import require_right
from dsollama.install.record import mark_consumed, write_record
from dsollama.install.register import MergedFile
from dsollama.install.selection import open_shards
from dsollama.install.staging import MERGED, locked_staging
from dsollama.install.state import look
from dsollama.privileges import acting_as
from dsollama.sources.local import ShardReader
from dsollama.store.files import store_failures
from dsollama.store.store import Store
from dsollama.transfer.journal import clear_claims
from dsollama.transfer.padding import Padding, put_back_published, write_zeros
from dsollama.transfer.region import Region, make_regions
from dsollama.transfer.staged import StagedFile
from dsollama.transfer.transfer import Transfer, TransferOptions
from dsollama.units import format_bytes


@dataclass(frozen=True)
class Made:
    """A merged file that a store has now.

    Attributes:
        digest: `sha256:HEX`.
        moved: bytes that came over the network now.
        copied: bytes read from files of this machine.
        resumed: bytes taken over from an earlier run.
        was_there: whether the store had it already, so that nothing was made or adopted.
    """

    digest: str
    moved: int
    copied: int
    resumed: int
    was_there: bool


def make(
    plan: InstallPlan,
    store: Store,
    adopt: Callable[[Path, MergedFile], None],
    listener: Listener,
    connections: int,
) -> Made:
    """Have the plan's merged file in `store`: made now, or there already and still right.

    Args:
        plan: what is made.
        store: where.
        adopt: takes the finished file out of the staging folder that it is given.
        listener: hears of progress.
        connections: parallel connections.

    Raises:
        DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
    """
    store.require_writable()
    prove(plan, store, listener)
    state = look(plan, store)
    if not state.installed:
        _require_room(plan, state)
        with locked_staging(store, plan.key) as staging:
            state = look(plan, store)  # another dsollama may have been quicker
            if not state.installed:
                write_record(staging, plan.record)
                merged = _build(plan, staging, listener, connections)
                adopt(staging, merged)
                return Made(merged.digest, merged.moved, merged.copied, state.resumed, False)
    digest = str(state.installed)
    require_right(plan, store, digest, listener)
    return Made(digest, 0, 0, state.resumed, True)


def _require_room(plan: InstallPlan, state: DiskState) -> None:
    if state.needed > state.free:
        raise NotEnoughDiskError(
            f"The install needs {format_bytes(state.needed)} and {plan.store} has "
            f"{format_bytes(state.free)} free.",
            "Free some space, take a smaller quant, or put the store elsewhere with --store.",
        )


def _build(plan: InstallPlan, staging: Path, listener: Listener, connections: int) -> MergedFile:
    """Make the merged file, by either merger."""
    reader = open_shards(plan.source if plan.remote else None, plan, plan.local, listener)
    if not plan.program:
        return _fetch_merged(plan, reader, staging, listener, connections)
    merged = staging / MERGED
    moved, shards = _fetch_shards(plan, reader, staging, listener, connections)
    listener(StepStarted("merge", str(plan.program)))
    reader.require_unchanged()
    files = _shard_files(plan, staging)
    assert plan.layout is not None  # noqa: S101 - only shards are merged by a program
    gaps = shards_gaps(plan.layout, files)
    with _removed_on_failure(merged):
        split_program.merge(plan.program, files[0], merged)
        listener(StepStarted("digest", format_bytes(plan.size)))
        found = require_merged(merged, plan.layout, plan.headers, shards, gaps, listener)
    digest = f"sha256:{found.whole}"
    return MergedFile(digest, found.prefixes, moved - reader.copied, reader.copied, gaps)


def _fetch_merged(
    plan: InstallPlan, reader: ShardReader, staging: Path, listener: Listener, connections: int
) -> MergedFile:
    """The one pass: every shard straight to its place in the merged file."""
    merged = staging / MERGED
    head = plan.layout.header if plan.layout else b""
    _prepare(merged, plan, head, staging)
    heads = {index: header.raw if plan.layout else b"" for index, header in enumerate(plan.headers)}
    regions = make_regions(
        plan.shards,
        plan.staged_spans,
        dict.fromkeys(heads, merged),
        heads,
        plan.size,
    )
    _verify_headers_only(plan, listener)
    listener(StepStarted("download", _what(plan)))
    whole = hashlib.sha256(head) if plan.layout else None
    options = TransferOptions(
        connections=min(connections, MAX_CONNECTIONS) if plan.consume else connections,
        max_ahead=max_ahead(plan.size) if plan.consume else None,
        on_verified=lambda region: (
            _consume(reader, transfer, staging, region) if plan.consume else None
        ),
        padding=Padding(plan.layout.gaps) if plan.layout else None,
    )
    transfer = Transfer(regions, reader, staging, options, listener)
    with _interruptible(transfer):
        digests = transfer.run(whole)
    reader.require_unchanged()
    zeros = write_zeros(merged, staging, plan.layout.gaps) if plan.layout else {}
    # A single file is the blob as it is: one digest serves both.
    digest = f"sha256:{digests.whole or digests.shards[0]}"
    moved = transfer.moved - reader.copied
    return MergedFile(digest, digests.prefixes, moved, reader.copied, zeros)


def _prepare(file: Path, plan: InstallPlan, head: bytes, staging: Path) -> None:
    """Give the staging file its room and its first bytes; without a file no claim holds."""
    if not file.exists():
        clear_claims(staging)
    put_back_published(file, staging)
    with closing(StagedFile(file)) as staged:
        staged.resize(plan.size, reserve=not plan.consume)
        staged.write(memoryview(head), 0, direct=False)


def _consume(reader: ShardReader, transfer: Transfer, staging: Path, region: Region) -> None:
    """Delete a local shard whose bytes are verified, once they are on the disk for good."""
    file = reader.local(region.shard.path)
    if file is not None:
        transfer.checkpoint()
        mark_consumed(staging)
        with store_failures(file.path), acting_as(file.reads_as):
            file.path.unlink()


def _shard_files(plan: InstallPlan, staging: Path) -> dict[int, Path]:
    """Return a file for each shard, with the name that llama-gguf-split expects."""
    count = len(plan.shards)
    return {index: staging / shard_file_name("model", index + 1, count) for index in range(count)}


def _fetch_shards(
    plan: InstallPlan, reader: ShardReader, staging: Path, listener: Listener, connections: int
) -> tuple[int, tuple[str, ...]]:
    """The named road: every shard into a file of its own; return the bytes moved, and digests."""
    files = _shard_files(plan, staging)
    regions = make_regions(plan.shards, plan.staged_spans, files, dict.fromkeys(files, b""), 0)
    listener(StepStarted("download", _what(plan)))
    options = TransferOptions(connections)
    with _interruptible(Transfer(regions, reader, staging, options, listener)) as transfer:
        digests = transfer.run(None)
    return transfer.moved, digests.shards


def _what(plan: InstallPlan) -> str:
    text = f"{len(plan.shards)} shards, {format_bytes(plan.size)}"
    return f"{text}, {len(plan.local)} of them from this machine" if plan.local else text


def _verify_headers_only(plan: InstallPlan, listener: Listener) -> None:
    """Check shards without tensors: their header is all they have."""
    spans = {span.file for span in plan.staged_spans}
    for index, (shard, header) in enumerate(zip(plan.shards, plan.headers, strict=True)):
        if index not in spans:
            found = hashlib.sha256(header.raw).hexdigest()
            if shard.sha256 not in {None, found}:
                raise CorruptShardError(
                    f"Shard {index + 1} ({shard.path}) is not the one that the Hub published.",
                    "Run the same command again.",
                )
            listener(ShardVerified(index + 1, len(plan.shards), found, shard.published))


@contextmanager
def _interruptible(transfer: Transfer) -> Iterator[Transfer]:
    """Turn Ctrl-C into an error that says what is kept."""
    try:
        with transfer:
            yield transfer
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            f"Stopped; {format_bytes(transfer.in_place())} are kept.",
            "Run the same command again to go on from there.",
        ) from error


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)  # what an interrupted run left
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
