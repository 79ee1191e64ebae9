"""Rendering: data on stdout, progress and hints on stderr."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TextIO

import typer

from dsollama.cli.streams import escaped, one_line, print_json, printable
from dsollama.events import BytesMoved, Event, Listener, Noted, ShardVerified, StepStarted
from dsollama.units import format_bytes, format_duration

__all__ = [
    "confirm", "hint", "is_terminal", "one_line", "print_json", "print_table", "printable",
    "progress", "say", "speak", "write",
]  # fmt: skip

PLAIN_SECONDS = 5.0
"""How often progress becomes a line where there is no terminal."""

JSON_SECONDS = 1.0

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Of those the ones that steer a terminal, or that it cannot be sent."""


def write(text: str) -> None:
    """Write data on stdout: to the letter, but to a terminal as `printable` has it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def speak(text: str, stream: TextIO) -> None:
    """Write a part of a model's answer: to the letter, but no controls to a terminal.

    What turns the direction of text stays: it belongs to some languages.
    """
    stream.write(_CONTROLS.sub(escaped, text) if stream.isatty() else text)
    stream.flush()


def say(text: str, *, err: bool = False) -> None:
    """Print a line; all text that this program has from elsewhere goes this way."""
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{printable(text)}\n")
    stream.flush()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, the first as the heading."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())


@contextmanager
def progress(*, as_json: bool) -> Iterator[Listener]:
    """Yield a listener: JSON lines, a bar on a terminal, or plain lines."""
    if as_json:
        yield _Throttled(JSON_SECONDS, _print_event)
    elif sys.stderr.isatty():
        try:
            bar = _Bar()
            bar.start()
        except RuntimeError:  # no thread is to be had that draws it
            yield _Throttled(PLAIN_SECONDS, _Plain())
            return
        try:
            yield bar
        finally:
            bar.stop()
    else:
        yield _Throttled(PLAIN_SECONDS, _Plain())


def _print_event(event: Event) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(event).__name__).lower()
    print_json({"event": name, **asdict(event)})


class _Throttled:
    """Passes events on, but progress only once in a while, and always its end."""

    def __init__(self, seconds: float, listener: Listener) -> None:
        self._seconds = seconds
        self._listener = listener
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, BytesMoved):
            if event.done < event.total and now - self._last < self._seconds:
                return
            self._last = now
        self._listener(event)


class _Plain:
    """One line an event, on stderr."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def __call__(self, event: Event) -> None:
        say(one_line(self._line(event)), err=True)

    def _line(self, event: Event) -> str:
        if isinstance(event, StepStarted):
            self._start = None
            return f"{event.step}: {event.detail}"
        if isinstance(event, ShardVerified):
            return f"{_done(event)}, sha256 {event.sha256[:12]}..."
        if isinstance(event, Noted):
            return event.text
        now = time.monotonic()
        if self._start is None:
            self._start = (now, event.done)
        seconds, moved = now - self._start[0], event.done - self._start[1]
        line = (
            f"{event.step}: {format_bytes(event.done)} of {format_bytes(event.total)} "
            f"({event.done / max(event.total, 1):.0%}), {_part(event)}"
        )
        if seconds < 1 or not moved:
            return line
        rate = moved / seconds
        left = format_duration((event.total - event.done) / rate)
        return f"{line}, {format_bytes(rate)}/s, {left} left"


class _Bar:
    """A bar with bytes, rate and time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: Any = None

    def start(self) -> None:
        """Show it; raises RuntimeError where no thread can be started."""
        self._progress.start()

    def stop(self) -> None:
        """Take it away."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, BytesMoved):
            self._move(event)
        elif isinstance(event, StepStarted):
            self._print(f"[bold]{event.step}[/bold]: ", event.detail)
        elif isinstance(event, ShardVerified):
            self._print(f"  {_done(event)}", "")
        else:
            self._print("  ", event.text)

    def _move(self, event: BytesMoved) -> None:
        description = _part(event)
        if self._task is None:
            self._task = self._progress.add_task(
                description, total=event.total, completed=event.resumed
            )
        self._progress.update(
            self._task, total=event.total, completed=event.done, description=description
        )

    def _print(self, markup: str, text: str) -> None:
        from rich.markup import escape

        self._progress.console.print(markup + escape(one_line(text)))


def _done(event: ShardVerified) -> str:
    what = "verified" if event.published else "complete, with no published digest to compare"
    return f"shard {event.shard}/{event.shards} {what}"


def _part(event: BytesMoved) -> str:
    what = {"verify": "blob", "digest": "file"}.get(event.step, "shard")
    return f"{what} {event.shard}/{event.shards}"


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, assume_yes: bool, destroys: bool = False) -> bool:
    """Ask on a terminal; without one, or with --yes, go on.

    Args:
        question: with its question mark.
        assume_yes: do not ask.
        destroys: whether something is deleted; then a mere Enter means no.
    """
    if assume_yes or not is_terminal():
        return True
    return typer.confirm(printable(question), default=not destroys, err=True)


def hint(text: str) -> None:
    """Print a hint on stderr."""
    say(text, err=True)
