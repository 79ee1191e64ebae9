"""The Modelfile document (https://docs.ollama.com/modelfile)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

_SMALLEST_PLAIN = 1e-6
"""Below this Go's JSON writes an exponent (encoding/json, floatEncoder)."""


@dataclass(frozen=True)
class Modelfile:
    """A Modelfile as dsollama writes it.

    Attributes:
        base: what FROM names: a model, a file or a blob.
        template: the Go template; None leaves the GGUF's own in charge.
        params: Ollama parameters.
        system: the system prompt; empty for none.
        comment: lines for people, put first.
    """

    base: str
    template: str | None = None
    params: Mapping[str, float | int] = field(default_factory=dict)
    system: str = ""
    comment: str = ""

    def render(self) -> str:
        """Return the document's text."""
        lines = [f"# {line}".rstrip() for line in self.comment.splitlines()]
        lines.append(f"FROM {self.base}")
        if self.template is not None:
            lines.append(f"TEMPLATE {_quote(self.template)}")
        if self.system:
            lines.append(f"SYSTEM {_quote(self.system)}")
        lines += [
            f"PARAMETER {name} {format_number(value)}"
            for name, value in sorted(self.params.items())
        ]
        return "\n".join(lines) + "\n"


def format_number(value: float) -> str:
    """Return a parameter's number as Go's JSON writes it: `1`, not `1.0`; `1e-7`, not `1e-07`."""
    if float(value).is_integer():
        return str(int(value))
    if abs(value) >= _SMALLEST_PLAIN:
        return format(Decimal(repr(value)), "f")
    return re.sub(r"e([+-])0", r"e\1", repr(value))


def _quote(text: str) -> str:
    """Return the text as a Modelfile value; triple quotes keep it exactly, without escapes.

    Ollama's parser (parser/parser.go) drops what Go calls not printable, U+3000 of Chinese and
    Japanese text among it; such a text is refused, because `ollama create` would change it.
    """
    if '"""' in text:
        msg = "a Modelfile value cannot contain three quotation marks in a row"
        raise ValueError(msg)
    dropped = {letter for letter in text if not letter.isprintable() and letter not in "\n\t\r"}
    dropped |= {letter for letter in text if letter.isspace() and letter not in " \n\t\r"}
    if dropped:
        msg = f"Ollama's Modelfile parser drops the character U+{ord(min(dropped)):04X}"
        raise ValueError(msg)
    return f'"""{text}"""'
