"""The Modelfile as dsollama makes it: a model, a template and settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from dsollama.modelfile.text import Comment, Entry, Instruction, write_modelfile

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
        """Return the document's text.

        Raises:
            ValueError: a value that no Modelfile can hold.
        """
        entries: list[Entry] = [Comment(line) for line in self.comment.splitlines()]
        entries.append(Instruction("FROM", self.base))
        if self.template is not None:
            entries.append(Instruction("TEMPLATE", self.template))
        if self.system:
            entries.append(Instruction("SYSTEM", self.system))
        entries += [
            Instruction("PARAMETER", format_number(value), name)
            for name, value in sorted(self.params.items())
        ]
        return write_modelfile(entries)


def format_number(value: float) -> str:
    """Return a parameter's number as Go's JSON writes it: `1`, not `1.0`; `1e-7`, not `1e-07`."""
    if float(value).is_integer():
        return str(int(value))
    if abs(value) >= _SMALLEST_PLAIN:
        return format(Decimal(repr(value)), "f")
    return re.sub(r"e([+-])0", r"e\1", repr(value))
