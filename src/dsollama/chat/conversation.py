"""A conversation: history in, streamed parts out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dsollama.chat.choose import Choice, choose_name
from dsollama.chat.marks import disarm
from dsollama.errors import OllamaRefusedError, UsageError
from dsollama.ollama.address import server_address
from dsollama.ollama.client import connect, ollama_failures
from dsollama.ollama.server import Server

MAX_ANSWER_CHARACTERS = 16 * 2**20
"""A hundred times what DeepSeek's context of 163,840 tokens holds; an answer is kept in memory."""


@dataclass(frozen=True)
class Part:
    """A piece of an answer as it arrives: of the thought, or of the answer itself."""

    text: str
    thinking: bool


@dataclass
class Conversation:
    """Messages so far, and the name that answers.

    Attributes:
        choice: the name and think value.
        host: OLLAMA_HOST as it stands.
        messages: role and content, oldest first; thoughts are not kept, as DeepSeek asks.
    """

    choice: Choice
    host: str | None
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, prompt: str) -> Iterator[Part]:
        """Send `prompt` and yield the answer's parts; the exchange is kept once it is complete.

        Control marks in the prompt are disarmed: pasted text cannot forge a turn.

        Raises:
            UsageError: the prompt is no text.
            EngineError: Ollama does not answer, or refuses.
        """
        require_text(prompt)
        question = {"role": "user", "content": disarm(prompt)}
        answer: list[str] = []
        size = 0
        with ollama_failures(self.host):
            stream = connect(self.host).chat(
                self.choice.name,
                messages=[*self.messages, question],
                stream=True,
                think=self.choice.think,
            )
            for chunk in stream:
                size += len(chunk.message.thinking or "") + len(chunk.message.content or "")
                if size > MAX_ANSWER_CHARACTERS:
                    raise OllamaRefusedError(
                        f"The answer of {self.choice.name} is longer than any model's.",
                        "Something else may answer: set OLLAMA_HOST to where Ollama runs.",
                    )
                if chunk.message.thinking:
                    yield Part(chunk.message.thinking, thinking=True)
                if chunk.message.content:
                    answer.append(chunk.message.content)
                    yield Part(chunk.message.content, thinking=False)
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


def start(model: str, host: str | None, *, think: bool | None, system: str = "") -> Conversation:
    """Begin a conversation with the name that `model` and `think` mean.

    Raises:
        EngineError: Ollama does not answer.
        UsageError: it has no such model, or the system prompt is no text.
    """
    require_text(system)
    names = Server(server_address(host)).names()
    opening = [{"role": "system", "content": system}] if system else []
    return Conversation(choose_name(model, names, think), host, opening)
