"""`--consume`: the room that it promises to be enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsollama.install.consume import MAX_CONNECTIONS, max_ahead, room_needed
from dsollama.sources.local import LocalFile
from dsollama.transfer.region import MAX_SEGMENT, MIN_SEGMENT
from dsollama.transfer.shard import PlannedShard

MIB, GIB = 2**20, 2**30


def test_nothing_is_begun_too_far_ahead() -> None:
    assert max_ahead(1) == 16 * MIB
    assert max_ahead(4 * GIB) == GIB // 2
    assert max_ahead(10**12) == GIB


@pytest.mark.parametrize(
    ("size", "begun"),
    [(100 * MIB, MAX_CONNECTIONS * MIN_SEGMENT), (100 * GIB, MAX_CONNECTIONS * MAX_SEGMENT)],
)
def test_there_must_be_room_for_a_shard_and_for_what_is_begun_behind_it(
    size: int, begun: int, tmp_path: Path
) -> None:
    path = tmp_path / "one.gguf"
    path.write_bytes(b"")
    shards = [PlannedShard(name, size // 2, "0" * 64, "") for name in ("one", "two")]
    store = tmp_path / "not" / "there" / "yet"
    all_local = {name: LocalFile(path) for name in ("one", "two")}
    ahead = size // 2 + max_ahead(size) + begun
    assert room_needed(shards, all_local, store, size) == ahead
    one_local = {"one": LocalFile(path)}
    assert room_needed(shards, one_local, store, size) == size // 2 + ahead
    gone = {name: LocalFile(tmp_path / "gone") for name in ("one", "two")}
    assert room_needed(shards, gone, store, size) == size + ahead
