"""What of a transfer is in place: counts, order, waiting, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError, TransferError
from dsollama.transfer import progress as progress_module
from dsollama.transfer.journal import (
    JOURNAL,
    PROGRESS,
    claimed_bytes,
    has_claims,
    read_claims,
    write_claims,
)
from dsollama.transfer.progress import PROGRESS_BYTES, WAIT_SECONDS, Progress
from dsollama.transfer.region import Segment

SEGMENTS = [Segment(0, 0, 10), Segment(0, 10, 10), Segment(1, 20, 10), Segment(1, 30, 5)]


class Make:
    """Makes a progress that begins with claims of an earlier run."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging

    def __call__(self, segments: Sequence[Segment], claims: Mapping[int, int]) -> Progress:
        if claims:
            write_claims(self._staging, claims)
        return Progress(segments, self._staging, lambda: None)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return Make(tmp_path)


def always(_segment: Segment) -> bool:
    return True


def test_it_begins_with_the_claims(make: Make) -> None:
    progress = make(SEGMENTS, {0: 10, 1: 4})
    assert (progress.total, progress.resumed, progress.in_place(), progress.moved) == (
        35,
        14,
        14,
        0,
    )
    assert progress.claims() == {0: 10, 1: 4}
    assert progress.queued == 3
    assert [progress.next_segment(always) for _ in range(3)] == [1, 2, 3]


def test_what_arrives_is_counted_and_claimed(make: Make) -> None:
    progress = make(SEGMENTS, {1: 4})
    progress.arrived(1, 6)
    progress.arrived(2, 1)
    assert (progress.in_place(), progress.moved) == (11, 7)
    assert progress.claims() == {1: 10, 2: 1}


def test_without_a_segment_it_waits_a_while(make: Make) -> None:
    progress = make(SEGMENTS, {n: each.size for n, each in enumerate(SEGMENTS)})
    began = time.monotonic()
    assert progress.next_segment(always) is None
    assert time.monotonic() - began >= WAIT_SECONDS * 0.9


def test_a_segment_whose_time_has_not_come_stays_in_its_place(make: Make) -> None:
    progress = make(SEGMENTS, {})
    assert progress.next_segment(lambda segment: segment.start > 0) is None
    assert progress.queued == 4
    assert progress.next_segment(always) == 0


def test_a_wrong_shard_is_taken_back_and_comes_first_again(make: Make) -> None:
    progress = make(SEGMENTS, {})
    for number in (0, 1):
        assert progress.next_segment(always) == number
        progress.arrived(number, 10)
    progress.arrived(2, 3)
    progress.reset(0)
    assert progress.claims() == {2: 3}
    progress.enqueue(0)
    assert [progress.next_segment(always) for _ in range(4)] == [0, 1, 2, 3]
    assert progress.moved == 23  # fetched twice is moved twice


def test_waiting_ends_when_enough_or_all_is_there(make: Make) -> None:
    progress = make(SEGMENTS, {})
    progress.arrived(3, 5)
    assert progress.wait(3, 0, 100) == 5  # the segment has no more
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(progress.wait(0, 0, 4)))
    waiter.start()
    progress.arrived(0, 6)
    waiter.join(5)
    assert found in ([0], [6])  # 0: it looked before, and asks again
    assert progress.wait(0, 0, 4) == 6


def test_waiting_does_not_outlast_its_time(make: Make) -> None:
    progress = make(SEGMENTS, {})
    assert progress.wait(0, 0, 4) == 0


def test_the_first_failure_is_the_one_that_is_told(make: Make) -> None:
    progress = make(SEGMENTS, {})
    progress.arrived(0, 10)
    progress.fail(TransferError("the first"))
    progress.fail(TransferError("the second"))
    assert progress.stop.is_set()
    with pytest.raises(TransferError, match="the first"):
        progress.wait(0, 0, 4)


def test_the_end_wakes_who_waits_for_a_segment(make: Make) -> None:
    progress = make([], {})
    woken: list[int | None] = []
    waiter = threading.Thread(target=lambda: woken.append(progress.next_segment(always)))
    waiter.start()
    progress.end()
    waiter.join(5)
    assert woken == [None]
    assert progress.stop.is_set()


def test_a_checkpoint_claims_only_what_was_made_durable_before(tmp_path: Path) -> None:
    steps: list[object] = []

    def sync() -> None:
        steps.append((tmp_path / JOURNAL).exists())
        progress.arrived(1, 1)  # meanwhile: not durable

    progress = Progress(SEGMENTS, tmp_path, sync)
    progress.checkpoint()
    assert steps == []  # there is nothing to claim
    progress.arrived(0, 10)
    progress.checkpoint()
    assert steps == [False]
    assert read_claims(tmp_path, [each.size for each in SEGMENTS]) == {0: 10}


def test_without_anything_in_place_a_checkpoint_claims_nothing(make: Make, tmp_path: Path) -> None:
    progress = make(SEGMENTS, {0: 10})
    progress.reset(0)
    progress.checkpoint()
    assert not has_claims(tmp_path)


def test_a_disk_that_refuses_leaves_the_journal_as_it_was(make: Make, tmp_path: Path) -> None:
    def refuse() -> None:
        raise StoreNotWritableError("the disk is gone")

    make(SEGMENTS, {0: 3})
    progress = Progress(SEGMENTS, tmp_path, refuse)
    progress.arrived(0, 7)
    with pytest.raises(StoreNotWritableError):
        progress.checkpoint()
    assert claimed_bytes(tmp_path) == 3


def test_what_a_killed_process_loses_is_bounded(tmp_path: Path) -> None:
    """The other journal is written without a wait for the disk, while bytes arrive."""
    progress = Progress([Segment(0, 0, 10 * PROGRESS_BYTES)], tmp_path, lambda: None)
    progress.arrived(0, PROGRESS_BYTES - 1)
    assert claimed_bytes(tmp_path) == 0
    progress.arrived(0, 1)
    assert claimed_bytes(tmp_path) == PROGRESS_BYTES
    progress.arrived(0, PROGRESS_BYTES - 1)
    assert claimed_bytes(tmp_path) == PROGRESS_BYTES
    assert not (tmp_path / JOURNAL).exists()


def test_at_the_end_one_durable_journal_is_left(tmp_path: Path) -> None:
    progress = Progress([Segment(0, 0, 2 * PROGRESS_BYTES)], tmp_path, lambda: None)
    progress.start()
    progress.arrived(0, PROGRESS_BYTES)
    assert (tmp_path / PROGRESS).exists()
    progress.arrived(0, 1)
    progress.end()
    progress.close()
    assert claimed_bytes(tmp_path) == PROGRESS_BYTES + 1
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


def test_the_journal_is_written_while_bytes_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "SYNC_SECONDS", 0.01)
    progress = Progress(SEGMENTS, tmp_path, lambda: None)
    progress.start()
    progress.arrived(0, 10)
    until = time.monotonic() + 60
    while claimed_bytes(tmp_path) < 10 and time.monotonic() < until:
        time.sleep(0.005)
    assert claimed_bytes(tmp_path) == 10
    progress.end()
    progress.close()
