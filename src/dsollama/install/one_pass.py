"""dsollama's own merge: one pass over the network, straight into the merged file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dsollama.errors import CorruptShardError
from dsollama.events import Listener, ShardVerified, StepStarted
from dsollama.install.consume import MAX_CONNECTIONS, consume, max_ahead
from dsollama.install.merged_file import MergedFile
from dsollama.install.moving import amount_of, interruptible
from dsollama.install.plan import InstallPlan
from dsollama.install.staging import MERGED, prepare_merged
from dsollama.transfer.padding import Padding, write_zeros
from dsollama.transfer.region import make_regions
from dsollama.transfer.transfer import Transfer, TransferOptions


def merge_in_one_pass(
    plan: InstallPlan, staging: Path, listener: Listener, connections: int
) -> MergedFile:
    """Fetch every shard straight to its place in the merged file.

    Raises:
        DsollamaError: source, shard or store errors, or InterruptedByUserError.
    """
    reader = plan.open_shards(listener)
    merged = staging / MERGED
    head = plan.layout.header if plan.layout else b""
    prepare_merged(staging, plan.size, head, reserve=not plan.consume)
    heads = {index: header.raw if plan.layout else b"" for index, header in enumerate(plan.headers)}
    regions = make_regions(
        plan.shards,
        plan.staged_spans,
        dict.fromkeys(heads, merged),
        heads,
        plan.size,
    )
    _verify_headers_only(plan, listener)
    listener(StepStarted("download", amount_of(plan)))
    whole = hashlib.sha256(head) if plan.layout else None
    options = TransferOptions(
        connections=min(connections, MAX_CONNECTIONS) if plan.consume else connections,
        max_ahead=max_ahead(plan.size) if plan.consume else None,
        on_verified=lambda region: (
            consume(reader, transfer, staging, region) if plan.consume else None
        ),
        padding=Padding(plan.layout.gaps) if plan.layout else None,
    )
    transfer = Transfer(regions, reader, staging, options, listener)
    with interruptible(transfer):
        digests = transfer.run(whole)
    reader.require_unchanged()
    zeros = write_zeros(merged, staging, plan.layout.gaps) if plan.layout else {}
    # A single file is the blob as it is: one digest serves both.
    digest = f"sha256:{digests.whole or digests.shards[0]}"
    moved = transfer.moved - reader.copied
    return MergedFile(digest, digests.prefixes, moved, reader.copied, zeros)


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
