"""What every engine does: list its models, render a prompt, answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dsollama.errors import EngineError

MAX_ANSWER_CHARACTERS = 16 * 2**20
"""A hundred times what DeepSeek's context of 163,840 tokens holds; an answer is kept in memory."""


@dataclass(frozen=True)
class Chat:
    """A conversation for which an engine renders the prompt, or gives the next answer.

    Attributes:
        model: its name on the engine; an engine that serves one model does without.
        messages: role and content, oldest first, as /api/chat takes them.
        tools: as /api/chat takes them.
        think: True, False, or None to leave it to the model.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    think: bool | None = None


@dataclass(frozen=True)
class Part:
    """A piece of an answer as it arrives: of the thought, or of the answer itself."""

    text: str
    thinking: bool


class Engine(Protocol):
    """A running engine at an address; each method raises EngineError where it does not answer."""

    def names(self) -> Collection[str]:
        """Return the names of its models."""

    def render(self, chat: Chat) -> str:
        """Return the prompt, without generating anything."""

    def answer(self, chat: Chat) -> Iterator[Part]:
        """Yield the answer's parts as they arrive."""


def bounded(parts: Iterator[Part], too_long: EngineError) -> Iterator[Part]:
    """Yield the parts of an answer.

    Raises:
        EngineError: `too_long`, after more characters than any model's answer has.
    """
    size = 0
    for part in parts:
        size += len(part.text)
        if size > MAX_ANSWER_CHARACTERS:
            raise too_long
        if part.text:
            yield part
