"""The ring of received bytes against a simple model of it."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.transfer import window
from dsollama.transfer.window import Window

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
    """A window, what was put into it, and what was handed out of it and is still being read."""

    def __init__(self) -> None:
        self.window = Window()
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
        room = self.window.take(position) if position >= self.window.front and wanted else None
        if room is not None:
            assert self.window.reaches(position)
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
        self.window.put(position, size)
        for at in range(self.window.front, END):
            view = self.window.get(at, at + 1)
            assert view is None or view[0] == self.put[at]

    def get(self, position: int, size: int) -> None:
        """What is handed out is what was put, however little of it is kept."""
        view = self.window.get(position, position + size) if size else None
        if view is not None:
            assert 0 < len(view) <= size
            assert bytes(view) == bytes(self.put[position + at] for at in range(len(view)))
            self.read.append((position, view, bytes(view)))
            self.hits += 1

    def advance(self, position: int) -> None:
        self.window.advance(position)
        assert self.window.front == position
        self.read = [each for each in self.read if each[0] + len(each[1]) > position]

    def rewind(self, position: int) -> None:
        """Begin again: nobody reads any more, and what was put behind is not kept."""
        self.window.rewind(position)
        self.read.clear()
        self.put.clear()
        assert all(self.window.get(at, at + 1) is None for at in range(END))

    def check(self) -> None:
        for _, view, expected in self.read:
            assert bytes(view) == expected


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_what_was_handed_out_stays_until_the_digests_have_passed(
    steps: list[tuple[str, int, int]],
) -> None:
    with mock.patch.multiple(window, CELL_BYTES=CELL, CELLS=CELLS):
        checked = Checked()
        for kind, ahead, size in steps:
            front = checked.window.front
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
    with mock.patch.multiple(window, CELL_BYTES=CELL, CELLS=CELLS):
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
    with mock.patch.multiple(window, CELL_BYTES=CELL, CELLS=CELLS):
        ring = Window()
        assert ring.take(0) is not None
        ring.put(0, CELL)
        assert ring.take(CELL * CELLS) is None
        ring.advance(CELL - 1)
        assert ring.take(CELL * CELLS) is None
        ring.advance(CELL)
        assert ring.take(CELL * CELLS) is not None
        assert ring.take(CELL * CELLS) is None  # it is being filled


def test_the_memory_is_on_the_grid_of_pages() -> None:
    """Else no write from it could go past the page cache."""
    import ctypes

    for cell in range(window.CELLS):
        room = Window().take(cell * window.CELL_BYTES)
        assert room is not None
        assert ctypes.addressof(ctypes.c_char.from_buffer(room)) % 4096 == 0


@pytest.mark.parametrize("position", [0, 5, CELL])
def test_an_empty_put_keeps_nothing(position: int) -> None:
    with mock.patch.multiple(window, CELL_BYTES=CELL, CELLS=CELLS):
        ring = Window()
        assert ring.take(position) is not None
        ring.put(position, 0)
        assert ring.get(position, position + 1) is None
        assert ring.take(position) is not None
