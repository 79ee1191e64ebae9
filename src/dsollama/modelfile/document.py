"""The Modelfile document (https://docs.ollama.com/modelfile)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """Return a parameter's number as Go's JSON writes it: `1`, not `1.0`."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def _quote(text: str) -> str:
    """Return the text as a Modelfile value; triple quotes keep it exactly, without escapes."""
    if '"""' in text:
        msg = "a Modelfile value cannot contain three quotation marks in a row"
        raise ValueError(msg)
    return f'"""{text}"""'
