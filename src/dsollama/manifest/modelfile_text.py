"""Any Modelfile as text: parse, write, and back again.

The rules are those of Ollama's own parser (parser/parser.go of 0.33.0): an instruction a line, a
value as it stands, in quotation marks, or in triple ones over several lines; no escapes; comments
from `#` at the beginning of a line.
"""

from __future__ import annotations

import re
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
_KEY = re.compile(r"[A-Za-z0-9_]+")
_LINE_END = re.compile(r"[\r\n]")


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
    entries = _entries(text.removeprefix("\ufeff"))
    if not any(isinstance(each, Instruction) and each.name == "FROM" for each in entries):
        raise MalformedModelfileError("The Modelfile has no FROM line.")
    return entries


def write_modelfile(entries: Iterable[Entry]) -> str:
    """Return the text of the entries, one after another.

    Raises:
        ValueError: a value, a key or a comment that no Modelfile can hold; the text always says
            these entries and nothing else.
    """
    kept = tuple(entries)
    text = "".join(f"{_line(entry)}\n" for entry in kept)
    try:
        if _entries(text) == kept:
            return text
    except MalformedModelfileError:
        pass
    msg = "a name, a key or a comment is none that a Modelfile can hold"
    raise ValueError(msg)


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


def _line(entry: Entry) -> str:
    if isinstance(entry, Comment):
        return f"# {entry.text}" if entry.text else "#"
    key = f" {entry.key}" if entry.key else ""
    return f"{entry.name}{key} {quote(entry.value)}"


class _Lines:
    r"""The lines of a text, each with its number from 1; `\r` ends one as well as `\n`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.number = 0
        self.end = ""

    def next(self) -> str | None:
        """Return the next line without its end, which `end` then holds; None at the end."""
        if self._at > len(self._text):
            return None
        found = _LINE_END.search(self._text, self._at)
        stop = found.start() if found else len(self._text)
        line = self._text[self._at : stop]
        end = found[0] if found else ""
        if (self.end, line, end) != ("\r", "", "\n"):  # \r\n is one end
            self.number += 1
        self.end, self._at = end, stop + 1
        return line


def _entries(text: str) -> tuple[Entry, ...]:
    lines = _Lines(text)
    entries: list[Entry] = []
    while (line := lines.next()) is not None:
        line = line.lstrip(" \t")
        if line.startswith("#"):
            entries.append(Comment(line[1:].removeprefix(" ")))
        elif line:
            # Ollama's parser drops one such letter, but takes it for the beginning of a name.
            entries.append(_instruction(line if _is_kept(line[0]) else line[1:], lines))
    return tuple(entries)


def _instruction(line: str, lines: _Lines) -> Instruction:
    number = lines.number
    name, rest = _word(line)
    name = name.upper()
    if name not in INSTRUCTIONS:
        raise MalformedModelfileError(
            f"Line {number} of the Modelfile is no instruction: {line[:40]!r}.",
            f"There are {', '.join(INSTRUCTIONS)}.",
        )
    key = ""
    if rest is not None and name in {"PARAMETER", "MESSAGE"}:
        key, rest = _word(rest)
        if name == "MESSAGE" and key not in _ROLES:
            raise MalformedModelfileError(f"Line {number}: the role {key!r} is none of {_ROLES}.")
        if not _KEY.fullmatch(key):
            raise MalformedModelfileError(f"Line {number}: {key[:40]!r} is no parameter's name.")
    if rest is None:
        raise MalformedModelfileError(f"Line {number} of the Modelfile has no value.")
    return Instruction(name, _value(rest, lines), key)


def _word(text: str) -> tuple[str, str | None]:
    """Cut at the first space; without one there is no rest."""
    for index, letter in enumerate(text):
        if letter in " \t":
            return text[:index], text[index + 1 :]
    return text, None


def _value(first: str, lines: _Lines) -> str:
    """Read a value that begins with `first` and may go on in the next lines.

    Whether it goes on, its first line decides: where that begins with quotation marks, the value
    ends with the first line that ends with the same ones.
    """
    number = lines.number
    text = _kept(first).lstrip()
    mark = next((each for each in ('"""', '"') if text.startswith(each)), "")
    if not mark:
        return text.rstrip()
    parts = [text]
    size = len(text.rstrip())
    while size < 2 * len(mark) or not parts[-1].rstrip().endswith(mark):
        parts.append(lines.end)
        line = lines.next()
        if line is None:
            raise MalformedModelfileError(
                f"The value that begins in line {number} of the Modelfile is not closed."
            )
        parts.append(_kept(line))
        size = 2 * len(mark)  # the marks of two lines do not overlap
    return "".join(parts).rstrip()[len(mark) : -len(mark)]


def _read_back(written: str) -> str | None:
    lines = _Lines(written)
    try:
        value = _value(lines.next() or "", lines)
    except MalformedModelfileError:
        return None
    return value if lines.next() is None else None


def _kept(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter for letter in text if _is_kept(letter))


def _is_kept(letter: str) -> bool:
    """Whether Ollama's parser keeps it: printable as Go's strconv.IsPrint says, or white space."""
    return letter in _KEPT or letter.isprintable()
