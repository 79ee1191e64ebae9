"""A conversation: history in, streamed parts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dsollama.chat.choose import Choice, choose_name
from dsollama.chat.marks import disarm
from dsollama.engines.protocol import Chat, Engine, Part
from dsollama.errors import UsageError


@dataclass
class Conversation:
    """Messages so far, and the name that answers.

    Attributes:
        engine: what answers.
        choice: the name and think value.
        messages: role and content, oldest first; thoughts are not kept, as DeepSeek asks.
    """

    engine: Engine
    choice: Choice
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, prompt: str) -> Iterator[Part]:
        """Send `prompt` and yield the answer's parts; the exchange is kept once it is complete.

        Control marks in the prompt are disarmed: pasted text cannot forge a turn.

        Raises:
            UsageError: the prompt is no text.
            EngineError: the engine does not answer, or refuses.
        """
        require_text(prompt)
        question = {"role": "user", "content": disarm(prompt)}
        asked = Chat(self.choice.name, [*self.messages, question], think=self.choice.think)
        answer: list[str] = []
        for part in self.engine.answer(asked):
            if not part.thinking:
                answer.append(part.text)
            yield part
        self.messages += [question, {"role": "assistant", "content": "".join(answer)}]


def require_text(typed: str | bytes) -> str:
    """Return what was typed or piped as text.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return typed.decode() if isinstance(typed, bytes) else typed.encode().decode()
    except UnicodeError as error:
        raise UsageError(
            "The prompt is not text in UTF-8.",
            "Save or convert it as UTF-8 (`iconv -t UTF-8`), and let LANG name a UTF-8 locale.",
        ) from error


def start(model: str, engine: Engine, *, think: bool | None, system: str = "") -> Conversation:
    """Begin a conversation with the name that `model` and `think` mean.

    Raises:
        EngineError: the engine does not answer.
        UsageError: it has no such model, or the system prompt is no text.
    """
    require_text(system)
    opening = [{"role": "system", "content": system}] if system else []
    return Conversation(engine, choose_name(model, engine.names(), think), opening)
