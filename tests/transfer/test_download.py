"""Connections: how many start, and that what a stream gave before it failed is kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest

from dsollama import limits
from dsollama.errors import LimitError, TransferError
from dsollama.transfer import download
from dsollama.transfer.buffer import Buffer
from dsollama.transfer.download import Downloader
from dsollama.transfer.pace import Pace
from dsollama.transfer.progress import Progress
from dsollama.transfer.region import MIN_SEGMENT, make_segments
from in_memory import MemorySource, make_shards, merged_regions

SIZE = 3 * MIN_SEGMENT


class Lab:
    """The parts of a transfer without its verifier."""

    def __init__(self, folder: Path) -> None:
        self.source = MemorySource(make_shards(SIZE))
        regions = merged_regions(self.source.shards, folder / "merged.gguf")
        self.buffer = Buffer(regions)
        self.progress = Progress(make_segments(regions), folder, self.buffer.sync)
        pace = Pace(self.buffer, self.progress.stop, None)
        self.downloader = Downloader(regions, self.source, self.buffer, self.progress, pace)

    def __enter__(self) -> Self:
        self.buffer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.downloader.end()
        self.buffer.close()

    def wait(self) -> None:
        """Wait until the first segment is in place."""
        while self.progress.wait(0, 0, SIZE) < self.progress.segments[0].size:
            pass


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_came_before_a_failure_is_in_place(lab: Lab) -> None:
    reads: list[int] = []

    def fail(_path: str, offset: int) -> None:
        reads.append(offset)
        if len(reads) == 4:
            raise TransferError("cut off")

    lab.source.hook = fail
    with lab:
        lab.downloader.start(1)
        with pytest.raises(TransferError, match="cut off"):
            lab.wait()
        assert lab.progress.done == [3 * 2**20, 0, 0, 0]


def test_there_are_no_more_connections_than_segments(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start_thread = limits.start_thread

    def count(*arguments: Any) -> threading.Thread:
        started.append(arguments)
        return start_thread(*arguments)

    monkeypatch.setattr(download, "start_thread", count)
    with lab:
        lab.downloader.start(100)
        lab.wait()
    assert len(started) == len(lab.progress.segments)


def test_one_connection_is_enough_where_no_more_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    start_thread = limits.start_thread

    def once(*arguments: Any) -> threading.Thread:
        if threads:
            raise LimitError("no more threads")
        threads.append(start_thread(*arguments))
        return threads[0]

    monkeypatch.setattr(download, "start_thread", once)
    with lab:
        lab.downloader.start(4)
        lab.wait()


def test_a_slow_stream_is_written_before_a_cell_is_full(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FLUSH_SECONDS", 0.01)
    held = threading.Event()

    def slow(_path: str, offset: int) -> None:
        time.sleep(0.02)
        if offset >= 2**20:
            held.wait(60)

    lab.source.hook = slow
    with lab:
        lab.downloader.start(1)
        while not lab.progress.wait(0, 0, 1):
            pass
        assert lab.progress.in_place() == 2**20
        held.set()
        lab.wait()
