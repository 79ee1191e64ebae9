"""Any Modelfile as text: parse, write, and back again.

The rules are those of Ollama's own parser (parser/parser.go of 0.33.0): an instruction a line, a
value as it stands, in quotation marks, or in triple ones over several lines; no escapes; comments
from `#` at the beginning of a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsollama.errors import MalformedModelfileError

MAX_MODELFILE = 4 * 2**20
"""Characters; the longest real templates have some 20,000."""

INSTRUCTIONS = (
    "FROM", "TEMPLATE", "SYSTEM", "PARAMETER", "MESSAGE", "LICENSE", "ADAPTER", "RENDERER",
    "PARSER", "REQUIRES", "DRAFT",
)  # fmt: skip
_ROLES = ("system", "user", "assistant")
_KEPT = " \t\n\r"


@dataclass(frozen=True)
class Comment:
    """A comment line, without its `#`."""

    text: str


@dataclass(frozen=True)
class Instruction:
    """An instruction.

    Attributes:
        name: in capitals.
        value: without quotation marks.
        key: the parameter's name, or the message's role; empty for the others.
    """

    name: str
    value: str
    key: str = ""


Entry = Comment | Instruction


def parse_modelfile(text: str) -> tuple[Entry, ...]:
    """Return the entries of a Modelfile, in order.

    Raises:
        MalformedModelfileError: Ollama would not take it.
    """
    if len(text) > MAX_MODELFILE:
        raise MalformedModelfileError("The Modelfile is longer than any real one.")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    entries: list[Entry] = []
    at = 0
    while at < len(lines):
        line, number = lines[at].lstrip(" \t"), at + 1
        at += 1
        if line.startswith("#"):
            entries.append(Comment(line[1:].removeprefix(" ")))
        elif line:
            instruction, at = _instruction(line, lines, at, number)
            entries.append(instruction)
    if not any(isinstance(each, Instruction) and each.name == "FROM" for each in entries):
        raise MalformedModelfileError("The Modelfile has no FROM line.")
    return tuple(entries)


def write_modelfile(entries: Iterable[Entry]) -> str:
    """Return the text of the entries, one after another.

    Raises:
        ValueError: a value that no Modelfile can hold.
    """
    lines = []
    for entry in entries:
        if isinstance(entry, Comment):
            lines.append(f"# {entry.text}".rstrip())
        else:
            key = f" {entry.key}" if entry.key else ""
            lines.append(f"{entry.name}{key} {quote(entry.value)}")
    return "\n".join(lines) + "\n"


def quote(value: str) -> str:
    """Return a value as it is written: bare where that is the same, else in quotation marks.

    Raises:
        ValueError: Ollama's parser would read something else: it drops what Go calls not
            printable, U+3000 of Chinese and Japanese text among it, and has no escapes.
    """
    dropped = {letter for letter in value if not _is_kept(letter)}
    if dropped:
        msg = f"Ollama's Modelfile parser drops the character U+{ord(min(dropped)):04X}"
        raise ValueError(msg)
    for written in (value, f'"""{value}"""', f'"{value}"'):
        if written and _read_back(written) == value:
            return written
    msg = "a Modelfile value cannot contain three quotation marks at the end of a line"
    raise ValueError(msg)


def _instruction(line: str, lines: list[str], at: int, number: int) -> tuple[Instruction, int]:
    name, rest = _word(line)
    name = name.upper()
    if name not in INSTRUCTIONS:
        raise MalformedModelfileError(
            f"Line {number} of the Modelfile is no instruction: {line[:40]!r}.",
            f"There are {', '.join(INSTRUCTIONS)}.",
        )
    key = ""
    if name in {"PARAMETER", "MESSAGE"}:
        key, rest = _word(rest.lstrip(" \t"))
        if name == "MESSAGE" and key not in _ROLES:
            raise MalformedModelfileError(f"Line {number}: the role {key!r} is none of {_ROLES}.")
    value, at = _value(rest, lines, at, number)
    return Instruction(name, value, key), at


def _word(text: str) -> tuple[str, str]:
    for index, letter in enumerate(text):
        if letter in " \t":
            return text[:index], text[index + 1 :]
    return text, ""


def _value(first: str, lines: list[str], at: int, number: int) -> tuple[str, int]:
    """Read a value that begins with `first` and may go on in the lines from `at`."""
    parts = [first]
    while True:
        value = _unquote("\n".join(parts))
        if value is not None:
            return value, at
        if at == len(lines):
            raise MalformedModelfileError(
                f"The value that begins in line {number} of the Modelfile is not closed."
            )
        parts.append(lines[at])
        at += 1


def _unquote(text: str) -> str | None:
    """Return the value that `text` is, or None where its quotation marks are not closed yet."""
    text = "".join(letter for letter in text if _is_kept(letter)).strip()
    for mark in ('"""', '"'):
        if text.startswith(mark):
            closed = len(text) >= 2 * len(mark) and text.endswith(mark)
            return text[len(mark) : -len(mark)] if closed else None
    return text


def _read_back(written: str) -> str | None:
    lines = written.split("\n")
    try:
        value, at = _value(lines[0], lines, 1, 1)
    except MalformedModelfileError:
        return None
    return value if at == len(lines) else None


def _is_kept(letter: str) -> bool:
    """Whether Ollama's parser keeps it: printable as Go's strconv.IsPrint says, or white space."""
    return letter in _KEPT or letter.isprintable()
