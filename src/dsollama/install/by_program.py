"""The merge by llama-gguf-split: all shards first, then the program; twice the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsollama.events import Listener, StepStarted
from dsollama.gguf import split_program
from dsollama.gguf.shards import shard_file_name
from dsollama.install.merged import require_merged, shards_gaps
from dsollama.install.merged_file import MergedFile
from dsollama.install.moving import amount_of, interruptible
from dsollama.install.plan import InstallPlan
from dsollama.install.staging import MERGED
from dsollama.sources.local import ShardReader
from dsollama.transfer.region import make_regions
from dsollama.transfer.transfer import Transfer, TransferOptions
from dsollama.units import format_bytes


def merge_by_program(
    plan: InstallPlan, staging: Path, listener: Listener, connections: int
) -> MergedFile:
    """Fetch every shard into a file of its own, and have the program merge these.

    Raises:
        DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
    """
    reader = plan.open_shards(listener)
    merged = staging / MERGED
    moved, shards = _fetch_shards(plan, reader, staging, listener, connections)
    listener(StepStarted("merge", str(plan.program)))
    reader.require_unchanged()
    files = _shard_files(plan, staging)
    assert plan.layout is not None  # noqa: S101 - only shards are merged by a program
    assert plan.program is not None  # noqa: S101 - the plan has it for this merger
    gaps = shards_gaps(plan.layout, files)
    with _removed_on_failure(merged):
        split_program.merge(plan.program, files[0], merged)
        listener(StepStarted("digest", format_bytes(plan.size)))
        found = require_merged(merged, plan.layout, plan.headers, shards, gaps, listener)
    digest = f"sha256:{found.whole}"
    return MergedFile(digest, found.prefixes, moved - reader.copied, reader.copied, gaps)


def _shard_files(plan: InstallPlan, staging: Path) -> dict[int, Path]:
    """Return a file for each shard, with the name that llama-gguf-split expects."""
    count = len(plan.shards)
    return {index: staging / shard_file_name("model", index + 1, count) for index in range(count)}


def _fetch_shards(
    plan: InstallPlan, reader: ShardReader, staging: Path, listener: Listener, connections: int
) -> tuple[int, tuple[str, ...]]:
    """Fetch every shard into a file of its own; return the bytes moved, and digests."""
    files = _shard_files(plan, staging)
    regions = make_regions(plan.shards, plan.staged_spans, files, dict.fromkeys(files, b""), 0)
    listener(StepStarted("download", amount_of(plan)))
    options = TransferOptions(connections)
    with interruptible(Transfer(regions, reader, staging, options, listener)) as transfer:
        digests = transfer.run(None)
    return transfer.moved, digests.shards


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)  # what an interrupted run left
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
