"""The program's stdin, stdout and stderr, in whatever state it was started with them.

Imports nothing slow: it is there before the rest of the program is.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import Any

from dsollama.errors import DsollamaError, OutputError

_NAMES = ("stdin", "stdout", "stderr")
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u2028\u2029\ufeff\ud800-\udfff]"
)


def prepare() -> None:
    r"""Make the three streams ones that can be used.

    One that is closed leads to /dev/null: else the next file that is opened, such as one of the
    store, would take its number, and what is printed. What an encoding does not have is written as
    its number (`\u2192`). What cannot be written to stdout raises OutputError; to stderr, nothing.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout = _wrapped(_Stdout(1, "w", closefd=False), sys.stdout)
    sys.stderr = _wrapped(_Stderr(2, "w", closefd=False), sys.stderr)


def finish() -> None:
    """Write what is left.

    Raises:
        OutputError: it cannot be written.
    """
    sys.stdout.flush()


def give_up_stdout() -> None:
    """Let what comes now, and what is left, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tell(error: DsollamaError) -> None:
    """Tell a failure: a sentence and a hint on stderr; with --json, an object on stdout as well."""
    tell_words(error.code, str(error), error.hint, error.exit_code)


def tell_words(code: str, message: str, hint: str, exit_code: int) -> None:
    """Tell a failure in its parts, as `tell` does."""
    if "--json" in sys.argv[1:] and code != OutputError.code:
        found = {"event": "error", "code": code, "message": message, "hint": hint}
        print_json(found | {"exit": exit_code})
    # A hostile name may hold ends of lines.
    sys.stderr.write(
        f"Error: {one_line(message)}\n" + (f"Hint: {printable(hint)}\n" if hint else "")
    )
    sys.stderr.flush()


def print_json(value: object) -> None:
    """Print one JSON value on a line of stdout; in ASCII, so that every encoding has it."""
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    r"""Return `text` as a terminal may have it: unsafe characters as `\u001b`.

    They are those that begin escape sequences, turn the direction of text or cannot be encoded.
    Names of files and models, settings and answers of servers may hold any of them.
    """
    return _UNSAFE.sub(escaped, text)


def one_line(text: str) -> str:
    """Return `text` as `printable` has it, and without an end of a line in it."""
    return printable(text).replace("\n", "\\n")


def escaped(found: re.Match[str]) -> str:
    """Return a character that was found as its number."""
    return f"\\u{ord(found[0]):04x}"


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            give_up_stdout()
            raise OutputError(f"What is printed cannot be written: {error.strerror}.") from error


class _Stderr(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)  # there is nobody left to be told


def _wrapped(raw: io.FileIO, like: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == 2,  # noqa: PLR2004
    )
