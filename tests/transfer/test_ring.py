"""The ring of received bytes against a simple model of it."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.transfer import region, ring
from dsollama.transfer.ring import RingBuffer

CELL, CELLS = 16, 4
END = CELL * CELLS * 5

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "fill", "get", "get", "advance", "advance", "rewind"]),
        st.integers(0, 2 * CELL) | st.integers(0, CELL * (CELLS + 2)),
        st.integers(0, CELL),
    ),
    max_size=80,
)


class Checked:
    """A ring, what was put into it, and what was handed out of it and is still being read."""

    def __init__(self) -> None:
        self.ring = RingBuffer()
        self.put: dict[int, int] = {}
        self.taken: dict[int, tuple[memoryview, int]] = {}
        self.read: list[tuple[int, memoryview, bytes]] = []
        self.fresh = 0
        self.hits = 0

    def take(self, position: int, size: int) -> None:
        """Take room as a connection does: for bytes that nobody else fetches."""
        busy = set(self.put).union(
            *(range(at, at + wanted) for at, (_, wanted) in self.taken.items())
        )
        end = min(position + size, (position // CELL + 1) * CELL)
        wanted = next((at for at in range(position, end) if at in busy), end) - position
        room = self.ring.take(position) if position >= self.ring.front and wanted else None
        if room is not None:
            assert self.ring.reaches(position)
            assert len(room) == CELL - position % CELL
            assert all(at // CELL % CELLS != position // CELL % CELLS for at in self.taken)
            self.taken[position] = (room, wanted)

    def fill(self, choice: int, size: int) -> None:
        """Fill some of what was taken and give it back."""
        if not self.taken:
            return
        position = sorted(self.taken)[choice % len(self.taken)]
        room, wanted = self.taken.pop(position)
        size = min(size, wanted)
        for at in range(size):
            self.fresh = self.fresh % 255 + 1
            room[at] = self.put[position + at] = self.fresh
        self.ring.put(position, size)
        for at in range(self.ring.front, END):
            view = self.ring.get(at, at + 1)
            assert view is None or view[0] == self.put[at]

    def get(self, position: int, size: int) -> None:
        """What is handed out is what was put, however little of it is kept."""
        view = self.ring.get(position, position + size) if size else None
        if view is not None:
            assert 0 < len(view) <= size
            assert bytes(view) == bytes(self.put[position + at] for at in range(len(view)))
            self.read.append((position, view, bytes(view)))
            self.hits += 1

    def advance(self, position: int) -> None:
        self.ring.advance(position)
        assert self.ring.front == position
        self.read = [each for each in self.read if each[0] + len(each[1]) > position]

    def rewind(self, position: int) -> None:
        """Begin again: nobody reads any more, and what was put behind is not kept."""
        self.ring.rewind(position)
        self.read.clear()
        self.put.clear()
        assert all(self.ring.get(at, at + 1) is None for at in range(END))

    def check(self) -> None:
        for _, view, expected in self.read:
            assert bytes(view) == expected


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_what_was_handed_out_stays_until_the_digests_have_passed(
    steps: list[tuple[str, int, int]],
) -> None:
    with mock.patch.multiple(ring, CELL_BYTES=CELL, CELLS=CELLS):
        checked = Checked()
        for kind, ahead, size in steps:
            front = checked.ring.front
            position = min(front + ahead, END)
            if kind == "take":
                checked.take(position, size)
            elif kind == "fill":
                checked.fill(ahead, size)
            elif kind == "get":
                checked.get(position, size)
            elif kind == "advance":
                checked.advance(min(front + size, END))
            elif not checked.taken:  # the connections of a shard end before it is judged
                checked.rewind(max(front - ahead, 0))
            checked.check()


def test_what_arrives_close_ahead_is_kept_whole() -> None:
    with mock.patch.multiple(ring, CELL_BYTES=CELL, CELLS=CELLS):
        checked = Checked()
        for round_ in range(3 * CELLS):
            at = round_ * CELL
            for part in (at, at + CELL // 2):
                checked.take(part, CELL // 2)
                checked.fill(0, CELL // 2)
            checked.get(at, CELL)
            assert len(checked.read[-1][1]) == CELL
            checked.check()
            checked.advance(at + CELL)
        assert checked.hits == 3 * CELLS


def test_a_slot_is_free_only_when_its_cell_is_digested() -> None:
    with mock.patch.multiple(ring, CELL_BYTES=CELL, CELLS=CELLS):
        buffer = RingBuffer()
        assert buffer.take(0) is not None
        buffer.put(0, CELL)
        assert buffer.take(CELL * CELLS) is None
        buffer.advance(CELL - 1)
        assert buffer.take(CELL * CELLS) is None
        buffer.advance(CELL)
        assert buffer.take(CELL * CELLS) is not None
        assert buffer.take(CELL * CELLS) is None  # it is being filled


@pytest.mark.parametrize("start", [0, CELL * (CELLS - 1)])
def test_what_nobody_received_is_not_handed_out(start: int) -> None:
    """A connection that goes on in the middle of a cell leaves a hole behind the one before."""
    with mock.patch.multiple(ring, CELL_BYTES=CELL, CELLS=CELLS):
        buffer = RingBuffer()
        for at, size in ((start, 4), (start + 8, 2)):
            assert buffer.take(at) is not None
            buffer.put(at, size)
        assert buffer.get(start + 4, start + 8) is None
        found = buffer.get(start + 8, start + CELL)
        assert found is not None
        assert len(found) == 2


def test_the_memory_is_on_the_grid_of_pages() -> None:
    """Else no write from it could go past the page cache."""
    import ctypes

    for cell in range(ring.CELLS):
        room = RingBuffer().take(cell * region.CELL_BYTES)
        assert room is not None
        assert ctypes.addressof(ctypes.c_char.from_buffer(room)) % 4096 == 0


@pytest.mark.parametrize("position", [0, 5, CELL])
def test_an_empty_put_keeps_nothing(position: int) -> None:
    with mock.patch.multiple(ring, CELL_BYTES=CELL, CELLS=CELLS):
        buffer = RingBuffer()
        assert buffer.take(position) is not None
        buffer.put(position, 0)
        assert buffer.get(position, position + 1) is None
        assert buffer.take(position) is not None
