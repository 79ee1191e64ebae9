"""The Modelfile as dsollama makes it: a model, a template and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite

from dsollama.manifest.modelfile_text import Comment, Entry, Instruction, write_modelfile

_SMALLEST_PLAIN = 1e-6
"""Below this Go's JSON writes an exponent (encoding/json, floatEncoder)."""

Scalar = float | int | str | bool
Parameter = Scalar | list[Scalar] | tuple[Scalar, ...]
"""A parameter's value; several ones, such as of `stop`, are a line each."""


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
    params: Mapping[str, Parameter] = field(default_factory=dict)
    system: str = ""
    comment: str = ""

    def render(self) -> str:
        """Return the document's text.

        Raises:
            ValueError: a value that no Modelfile can hold.
        """
        entries: list[Entry] = [Comment(line.rstrip()) for line in self.comment.splitlines()]
        entries.append(Instruction("FROM", self.base))
        if self.template is not None:
            entries.append(Instruction("TEMPLATE", self.template))
        if self.system:
            entries.append(Instruction("SYSTEM", self.system))
        entries += [
            Instruction("PARAMETER", format_scalar(each), name)
            for name, value in sorted(self.params.items())
            for each in (value if isinstance(value, list | tuple) else (value,))
        ]
        return write_modelfile(entries)


def format_scalar(value: Scalar) -> str:
    """Return one value of a parameter as a Modelfile has it.

    Raises:
        ValueError: it is none, such as an object of JSON or an infinite number.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float) or (isinstance(value, float) and not isfinite(value)):
        msg = f"{value!r:.40} is no parameter's value"
        raise ValueError(msg)
    return format_number(value)


def format_number(value: float) -> str:
    """Return a parameter's number as Go's JSON writes it: `1`, not `1.0`; `1e-7`, not `1e-07`."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    if abs(value) >= _SMALLEST_PLAIN:
        return format(Decimal(repr(value)), "f")
    return re.sub(r"e([+-])0", r"e\1", repr(value))
