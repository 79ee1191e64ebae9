"""Back-pressure: who may begin, who waits for the digests, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsollama.transfer import pace as pace_module
from dsollama.transfer.buffer import Buffer
from dsollama.transfer.pace import FIRST_CONNECTIONS, WAITING_BYTES, Pace
from dsollama.transfer.region import CELL_BYTES, Segment
from dsollama.transfer.ring import CELLS
from in_memory import make_shards, merged_regions

RING = CELLS * CELL_BYTES
SOON = 0.1


class Lab:
    """A pace, and what it looks at."""

    def __init__(self, folder: Path, max_ahead: int | None = None) -> None:
        self.buffer = Buffer(merged_regions(make_shards(10), folder / "merged.gguf"))
        self.stop = threading.Event()
        self.pace = Pace(self.buffer, self.stop, max_ahead)

    def busy(self) -> None:
        with self.pace.digests_idle():
            pass

    def waiting(self, position: int) -> threading.Thread:
        thread = threading.Thread(target=self.pace.wait_for_digests, args=(position,))
        thread.start()
        thread.join(SOON)
        return thread

    def waits(self, position: int) -> bool:
        """Whether a connection at `position` is held back."""
        thread = self.waiting(position)
        waits = thread.is_alive()
        self.stop.set()
        thread.join()
        self.stop.clear()
        return waits


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.stop.set()


def test_any_segment_may_begin_without_a_bound(lab: Lab) -> None:
    assert lab.pace.may_begin(Segment(0, 10**15, 1))


def test_with_a_bound_it_moves_with_the_digests(tmp_path: Path) -> None:
    lab = Lab(tmp_path, max_ahead=1000)
    assert lab.pace.may_begin(Segment(0, 1000, 1))
    assert not lab.pace.may_begin(Segment(0, 1001, 1))
    lab.buffer.release(1)
    assert lab.pace.may_begin(Segment(0, 1001, 1))


@pytest.mark.parametrize(
    ("position", "waits"),
    [
        (0, False),
        (RING - 1, False),
        (RING, True),
        (WAITING_BYTES - 1, True),
        (WAITING_BYTES, False),
    ],
)
def test_only_a_little_too_far_ahead_of_busy_digests_is_waited(
    position: int, waits: bool, lab: Lab
) -> None:
    assert not lab.waits(position)  # nothing is digested yet
    lab.busy()
    assert lab.waits(position) == waits
    with lab.pace.digests_idle():
        assert not lab.waits(position)


def test_the_wait_ends_when_the_digests_come_closer(lab: Lab) -> None:
    lab.busy()
    thread = lab.waiting(RING)
    assert thread.is_alive()
    lab.buffer.release(CELL_BYTES)
    thread.join(10)
    assert not thread.is_alive()


def test_connections_begin_one_after_another(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_module, "RAMP_SECONDS", SOON)
    for number in range(FIRST_CONNECTIONS + 2):
        began = time.monotonic()
        lab.pace.wait_for_turn(number)
        assert time.monotonic() - began >= 0.9 * SOON * max(number - FIRST_CONNECTIONS + 1, 0)
    lab.stop.set()
    began = time.monotonic()
    lab.pace.wait_for_turn(10**5)
    assert time.monotonic() - began < 10


def test_no_further_connection_begins_while_one_is_held_back(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "RAMP_SECONDS", SOON)
    lab.busy()
    held = lab.waiting(RING)
    assert held.is_alive()
    more = threading.Thread(target=lab.pace.wait_for_turn, args=(FIRST_CONNECTIONS,))
    more.start()
    more.join(6 * SOON)
    assert more.is_alive()
    lab.buffer.release(CELL_BYTES)
    more.join(10)
    assert not more.is_alive()
    held.join(10)
