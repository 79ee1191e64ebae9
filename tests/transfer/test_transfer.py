"""A whole transfer from memory: what is written, verified, told, kept, and taken up again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from dsollama.errors import CorruptShardError, LimitError, StoreNotWritableError, TransferError
from dsollama.events import BytesMoved, Event, Noted, ShardVerified
from dsollama.transfer import download, progress, verify
from dsollama.transfer.digests import BLOCK_BYTES, Digests
from dsollama.transfer.journal import JOURNAL, PROGRESS, claimed_bytes
from dsollama.transfer.padding import Padding
from dsollama.transfer.region import CELL_BYTES, MIN_SEGMENT, Region
from dsollama.transfer.shard import PlannedShard
from dsollama.transfer.transfer import Transfer, TransferOptions
from in_memory import (
    HEAD,
    HEADER,
    REMEDY,
    MemorySource,
    make_shards,
    merged_bytes,
    merged_regions,
    separate_regions,
    sha256,
)

WAIT_SECONDS = 60.0


class Lab:
    """Three shards, and what is told of their transfer."""

    def __init__(self, folder: Path) -> None:
        self.shards = make_shards(3 * CELL_BYTES + 5, 2 * CELL_BYTES - 1, 1000)
        self.source = MemorySource(self.shards)
        self.folder = folder
        self.file = folder / "merged.gguf"
        self.regions = merged_regions(self.shards, self.file)
        self.events: list[Event] = []
        if not self.file.exists():
            self.file.write_bytes(bytes(HEADER))

    def transfer(self, options: TransferOptions | None = None) -> Transfer:
        options = options or TransferOptions(connections=3)
        return Transfer(self.regions, self.source, self.folder, options, self.events.append)

    def run(self, options: TransferOptions | None = None) -> Digests:
        with self.transfer(options) as transfer:
            return transfer.run(hashlib.sha256(bytes(HEADER)))

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def require_right(self, digests: Digests) -> None:
        expected = merged_bytes(self.shards)
        found = self.file.read_bytes()
        assert found + bytes(len(expected) - len(found)) == expected
        assert digests.whole == sha256(expected)
        assert digests.shards == tuple(map(sha256, self.shards.values()))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_everything_arrives_in_its_place_and_is_verified(lab: Lab) -> None:
    digests = lab.run()
    lab.require_right(digests)
    assert digests.prefixes == (digests.whole,)
    assert lab.told(ShardVerified) == [
        ShardVerified(number, 3, digest, True)
        for number, digest in enumerate(digests.shards, start=1)
    ]
    total = sum(region.span.size for region in lab.regions)
    assert lab.told(BytesMoved)[-1] == BytesMoved("download", total, total, 0, 3, 3)
    assert lab.source.cancelled
    assert claimed_bytes(lab.folder) == total
    assert not (lab.folder / PROGRESS).exists()


def test_each_shard_is_handed_on_when_it_is_right(lab: Lab) -> None:
    """As `--consume` does it: what is verified can be made durable before the next one."""
    durable: list[int] = []

    def on_verified(region: Region) -> None:
        transfer.checkpoint()
        durable.append(region.number)
        assert claimed_bytes(lab.folder) >= sum(
            each.span.size for each in lab.regions[: region.number]
        )

    transfer = lab.transfer(TransferOptions(2, on_verified=on_verified))
    with transfer:
        transfer.run(None)
        assert transfer.in_place() == transfer.moved
    assert durable == [1, 2, 3]


def test_padding_of_a_shard_is_zero_in_the_merged_digest_alone(lab: Lab) -> None:
    gap = (HEADER + CELL_BYTES - 10, 20)
    digests = lab.run(TransferOptions(2, padding=Padding([gap])))
    expected = bytearray(merged_bytes(lab.shards))
    expected[gap[0] : gap[0] + gap[1]] = bytes(gap[1])
    assert digests.whole == sha256(bytes(expected))
    assert digests.shards == tuple(map(sha256, lab.shards.values()))


def test_shards_can_go_to_files_of_their_own(lab: Lab) -> None:
    lab.regions = separate_regions(lab.shards, lab.folder)
    with lab.transfer() as transfer:
        digests = transfer.run(None)
    assert digests == Digests(tuple(map(sha256, lab.shards.values())), None, ())
    for name, data in lab.shards.items():
        assert (lab.folder / name).read_bytes() == data


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_file_of_whole_blocks_keeps_the_digests_of_its_blocks(blocks: int, lab: Lab) -> None:
    lab.shards = {"one": os.urandom(2**20) * (blocks * BLOCK_BYTES // 2**20)}
    lab.source = MemorySource(lab.shards)
    lab.regions = separate_regions(lab.shards, lab.folder)
    with lab.transfer() as transfer:
        digests = transfer.run(None)
    data = lab.shards["one"]
    ends = range(BLOCK_BYTES, len(data) + 1, BLOCK_BYTES)
    assert digests.prefixes == tuple(sha256(data[:end]) for end in ends)


def test_a_block_may_end_with_the_padding_between_two_shards(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BLOCK_BYTES", CELL_BYTES)
    lab.shards = make_shards(CELL_BYTES - HEADER - 7, CELL_BYTES + 3, CELL_BYTES - 64)
    lab.source = MemorySource(lab.shards)
    lab.regions = merged_regions(lab.shards, lab.file)
    assert lab.regions[0].padded_end == CELL_BYTES
    digests = lab.run()
    lab.require_right(digests)
    merged = merged_bytes(lab.shards)
    ends = (*range(CELL_BYTES, len(merged), CELL_BYTES), len(merged))
    assert digests.prefixes == tuple(sha256(merged[:end]) for end in ends)


def test_under_a_header_longer_than_a_block_no_digest_of_a_block_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BLOCK_BYTES", HEADER // 2)
    assert lab.run().prefixes == ()


def test_a_wrong_shard_is_fetched_once_more(lab: Lab) -> None:
    lab.source.wrong["shard-2"] = HEAD + bytes(2 * CELL_BYTES - 1)
    digests = lab.run()
    lab.require_right(digests)
    assert lab.told(Noted) == [Noted(REMEDY)]
    ranges = [each for each in lab.source.opened if each[0] == "shard-2"]
    assert sorted(ranges) == sorted(2 * list(set(ranges)))
    assert len(lab.told(ShardVerified)) == 3


def test_what_was_kept_of_a_wrong_shard_is_not_digested_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is first: here the connections have it all before the digests begin again."""
    lab.source.wrong["shard-1"] = HEAD + bytes(3 * CELL_BYTES + 5)
    digest = verify.Verifier.digest

    def late(verifier: verify.Verifier, index: int, *rest: object) -> str:
        began = time.monotonic()
        while transfer.in_place() < total and time.monotonic() - began < WAIT_SECONDS:
            time.sleep(0.001)
        return digest(verifier, index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(verify.Verifier, "digest", late)
    total = sum(region.span.size for region in lab.regions)
    with lab.transfer() as transfer:
        digests = transfer.run(hashlib.sha256(bytes(HEADER)))
    lab.require_right(digests)


@pytest.mark.parametrize(
    ("published", "hint"), [(True, "the upload itself is damaged"), (False, "That store's file")]
)
def test_a_shard_that_stays_wrong_is_given_up_and_the_others_are_kept(
    published: bool, hint: str, lab: Lab
) -> None:
    shard = PlannedShard("shard-2", len(lab.shards["shard-2"]), "0" * 64, "", published)
    lab.regions[1] = Region(**{**vars(lab.regions[1]), "shard": shard})
    with pytest.raises(CorruptShardError, match=r"Shard 2 of 3 \(shard-2\) has the digest") as told:
        lab.run()
    assert hint in told.value.hint
    assert lab.told(Noted) == [Noted(REMEDY)]
    assert claimed_bytes(lab.folder) <= sum(lab.regions[n].span.size for n in (0, 2))


def test_without_another_source_a_wrong_shard_is_given_up_at_once(lab: Lab) -> None:
    lab.source.wrong["shard-1"] = bytes(len(lab.shards["shard-1"]))
    lab.source.remedy = None
    with pytest.raises(CorruptShardError):
        lab.run()
    assert [path for path, _, _ in lab.source.opened].count("shard-1") <= 2


def test_a_failure_keeps_what_came_and_the_next_run_fetches_the_rest(lab: Lab) -> None:
    def fail(path: str, offset: int) -> None:
        if path == "shard-2" and offset >= CELL_BYTES + 2**20:
            raise TransferError("no more")

    lab.source.hook = fail
    with pytest.raises(TransferError, match="no more"):
        lab.run()
    kept = claimed_bytes(lab.folder)
    assert kept > CELL_BYTES
    again = Lab(lab.folder)
    with again.transfer() as transfer:
        digests = transfer.run(hashlib.sha256(bytes(HEADER)))
        assert transfer.moved == sum(region.span.size for region in lab.regions) - kept
    again.require_right(digests)
    moved = again.told(BytesMoved)[-1]
    assert isinstance(moved, BytesMoved)
    assert moved.resumed == kept


def test_a_staging_folder_of_an_earlier_version_is_taken_over(lab: Lab) -> None:
    """The journal is what dsollama at 8cf8255 wrote: bytes in place by the segment's number."""
    claimed = {0: MIN_SEGMENT - HEADER, 1: 1_000_000}
    text = json.dumps({"done": claimed, "boot": "", "version": 2}, separators=(",", ":"))
    (lab.folder / JOURNAL).write_text(f"{text}\n")
    lab.file.write_bytes(merged_bytes(lab.shards)[: MIN_SEGMENT + 1_000_000])
    with lab.transfer() as transfer:
        lab.require_right(transfer.run(hashlib.sha256(bytes(HEADER))))
        assert transfer.moved == transfer.in_place() - sum(claimed.values())
    first = min(start for path, start, _ in lab.source.opened if path == "shard-1")
    assert lab.regions[0].in_file(lab.regions[0].start) + first - len(HEAD) == (
        MIN_SEGMENT + 1_000_000
    )


def test_no_segment_is_begun_too_far_ahead(lab: Lab) -> None:
    held, begun = threading.Event(), threading.Event()

    def hold(path: str, offset: int) -> None:
        begun.set()
        if path == "shard-1" and offset < CELL_BYTES:
            held.wait(WAIT_SECONDS)

    lab.source.hook = hold
    with lab.transfer(TransferOptions(8, max_ahead=MIN_SEGMENT)) as transfer:
        assert begun.wait(WAIT_SECONDS)
        time.sleep(3 * progress.WAIT_SECONDS)
        assert {path for path, _, _ in lab.source.opened} == {"shard-1"}
        held.set()
        lab.require_right(transfer.run(hashlib.sha256(bytes(HEADER))))


def test_one_connection_that_meets_a_limit_leaves_the_rest_to_the_others(lab: Lab) -> None:
    met: list[int] = []

    def limit(_path: str, offset: int) -> None:
        others = len(lab.source.opened) > 1
        if not met and others and offset > 2**20:
            met.append(offset)
            raise MemoryError

    lab.source.hook = limit
    lab.require_right(lab.run())
    assert met


def test_a_limit_that_all_connections_meet_is_told(lab: Lab) -> None:
    def limit(_path: str, _offset: int) -> None:
        raise MemoryError

    lab.source.hook = limit
    with pytest.raises(MemoryError):
        lab.run()


@pytest.mark.parametrize("module", [progress, download])
def test_threads_that_cannot_start_leave_nothing_open(
    module: object, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LimitError("no more threads")

    monkeypatch.setattr(module, "start_thread", refuse)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(LimitError, match="no more threads"):
        lab.run()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert lab.source.cancelled


def test_a_journal_that_cannot_be_written_ends_the_transfer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreNotWritableError("the disk is full")

    monkeypatch.setattr(progress, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(progress, "write_claims", refuse)
    lab.source.hook = lambda _path, _offset: time.sleep(0.05)
    with pytest.raises(StoreNotWritableError):
        lab.run()
