"""What of a transfer is in place: counts, order, waiting, failures."""

from __future__ import annotations

import threading
import time

import pytest

from dsollama.errors import TransferError
from dsollama.transfer.arrivals import WAIT_SECONDS, Arrivals
from dsollama.transfer.segments import Segment

SEGMENTS = [Segment(0, 0, 10), Segment(0, 10, 10), Segment(1, 20, 10), Segment(1, 30, 5)]


def always(_segment: Segment) -> bool:
    return True


def test_it_begins_with_the_claims() -> None:
    arrivals = Arrivals(SEGMENTS, {0: 10, 1: 4})
    assert (arrivals.total, arrivals.resumed, arrivals.kept(), arrivals.moved) == (35, 14, 14, 0)
    assert arrivals.claims() == {0: 10, 1: 4}
    assert arrivals.waiting == 3
    assert [arrivals.next_segment(always) for _ in range(3)] == [1, 2, 3]


def test_what_arrives_is_counted_and_claimed() -> None:
    arrivals = Arrivals(SEGMENTS, {1: 4})
    arrivals.arrived(1, 6)
    arrivals.arrived(2, 1)
    assert (arrivals.kept(), arrivals.moved) == (11, 7)
    assert arrivals.claims() == {1: 10, 2: 1}


def test_without_a_segment_it_waits_a_while() -> None:
    arrivals = Arrivals(SEGMENTS, {n: each.size for n, each in enumerate(SEGMENTS)})
    began = time.monotonic()
    assert arrivals.next_segment(always) is None
    assert time.monotonic() - began >= WAIT_SECONDS * 0.9


def test_a_segment_whose_time_has_not_come_stays_in_its_place() -> None:
    arrivals = Arrivals(SEGMENTS, {})
    assert arrivals.next_segment(lambda segment: segment.target > 0) is None
    assert arrivals.waiting == 4
    assert arrivals.next_segment(always) == 0


def test_a_wrong_shard_is_forgotten_and_comes_first_again() -> None:
    arrivals = Arrivals(SEGMENTS, {})
    for number in (0, 1):
        assert arrivals.next_segment(always) == number
        arrivals.arrived(number, 10)
    arrivals.arrived(2, 3)
    arrivals.forget(0)
    assert arrivals.claims() == {2: 3}
    arrivals.requeue(0)
    assert [arrivals.next_segment(always) for _ in range(4)] == [0, 1, 2, 3]
    assert arrivals.moved == 23  # fetched twice is moved twice


def test_waiting_ends_when_enough_or_all_is_there() -> None:
    arrivals = Arrivals(SEGMENTS, {})
    arrivals.arrived(3, 5)
    assert arrivals.wait(3, 0, 100) == 5  # the segment has no more
    found: list[int] = []
    waiter = threading.Thread(target=lambda: found.append(arrivals.wait(0, 0, 4)))
    waiter.start()
    arrivals.arrived(0, 6)
    waiter.join(5)
    assert found in ([0], [6])  # 0: it looked before, and asks again
    assert arrivals.wait(0, 0, 4) == 6


def test_waiting_does_not_outlast_its_time() -> None:
    arrivals = Arrivals(SEGMENTS, {})
    assert arrivals.wait(0, 0, 4) == 0


def test_the_first_failure_is_the_one_that_is_told() -> None:
    arrivals = Arrivals(SEGMENTS, {})
    arrivals.arrived(0, 10)
    arrivals.fail(TransferError("the first"))
    arrivals.fail(TransferError("the second"))
    assert arrivals.stop.is_set()
    with pytest.raises(TransferError, match="the first"):
        arrivals.wait(0, 0, 4)


def test_the_end_wakes_who_waits_for_a_segment() -> None:
    arrivals = Arrivals([], {})
    woken: list[int | None] = []
    waiter = threading.Thread(target=lambda: woken.append(arrivals.next_segment(always)))
    waiter.start()
    arrivals.end()
    waiter.join(5)
    assert woken == [None]
    assert arrivals.stop.is_set()
