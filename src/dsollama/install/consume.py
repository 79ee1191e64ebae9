"""`--consume`: local shards are deleted one by one, so that no second 250 GB are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsollama.errors import UsageError
from dsollama.install.record import mark_consumed
from dsollama.privileges import acting_as
from dsollama.sources.local import LocalFile, ShardReader
from dsollama.store.files import store_failures
from dsollama.transfer.region import Region, segment_bytes
from dsollama.transfer.shard import PlannedShard
from dsollama.transfer.transfer import Transfer

MAX_CONNECTIONS = 8
"""That are used while shards are consumed: a disk needs no more."""

_LEAST_AHEAD, _MOST_AHEAD = 16 * 2**20, 2**30
_EFFECTIVE = os.access in os.supports_effective_ids


def max_ahead(size: int) -> int:
    """Return how many bytes ahead of the digests a segment may be begun, for a file of `size`."""
    return min(max(size // 8, _LEAST_AHEAD), _MOST_AHEAD)


def room_needed(
    shards: Sequence[PlannedShard], local: Mapping[str, LocalFile], store: Path, size: int
) -> int:
    """Return the bytes of disk that a merged file of `size` needs while shards are consumed.

    Only a local shard on the store's own disk makes room for its bytes. Beside that there must be
    room for the shard being verified, and for what the connections have begun behind it.
    """
    freed = sum(
        shard.size
        for shard in shards
        if shard.path in local and _on_one_disk(local[shard.path], store)
    )
    begun = MAX_CONNECTIONS * segment_bytes(size)
    return max(size - freed, 0) + max(shard.size for shard in shards) + max_ahead(size) + begun


def require_consumable(shards: Sequence[PlannedShard], local: Mapping[str, LocalFile]) -> None:
    """Refuse to delete what could not be had again, or would free nothing.

    Raises:
        UsageError: with the reason.
    """
    for shard in shards:
        if shard.path not in local:
            continue
        file = local[shard.path]
        if shard.sha256 is None:
            raise UsageError(
                f"{file.path} cannot be consumed: the Hub publishes no digest to check it by.",
                "Leave out --consume; or unset HF_HUB_OFFLINE, so that the Hub is asked.",
            )
        with acting_as(file.reads_as):
            _require_deletable(file.path)


def _require_deletable(path: Path) -> None:
    if path.is_symlink() or path.stat().st_nlink > 1:
        raise UsageError(
            f"{path} cannot be consumed: it is a link, and deleting it would free nothing.",
            "Give --from-dir the folder of the files themselves, or leave out --consume.",
        )
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
        raise UsageError(
            f"{path} cannot be consumed: its folder is not writable for this user.",
            "Leave out --consume, or run dsollama as the owner of the folder.",
        )


def _on_one_disk(file: LocalFile, store: Path) -> bool:
    """Whether a file's room becomes the store's when it is deleted."""
    while not store.exists():
        store = store.parent
    try:
        with acting_as(file.reads_as):
            disk = file.path.stat().st_dev
        return disk == store.stat().st_dev
    except OSError:
        return False


def consume(reader: ShardReader, transfer: Transfer, staging: Path, region: Region) -> None:
    """Delete a local shard whose bytes are verified, once they are on the disk for good.

    Raises:
        StoreError: it cannot be deleted, or what replaces it not be made durable.
    """
    file = reader.local(region.shard.path)
    if file is not None:
        transfer.checkpoint()
        mark_consumed(staging)
        with store_failures(file.path), acting_as(file.reads_as):
            file.path.unlink()
