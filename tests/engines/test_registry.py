"""A second engine is one class and one entry in the table: all that asks an engine has it then."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from typer.testing import CliRunner

from dsollama.chat.conversation import start
from dsollama.cli.app import app
from dsollama.engines.llama_server import LlamaServer
from dsollama.engines.ollama import Ollama
from dsollama.engines.protocol import MAX_ANSWER_CHARACTERS, Chat, Engine, Part, bounded
from dsollama.engines.registry import ENGINES, Registration, connect
from dsollama.errors import OllamaRefusedError, UsageError
from dsollama.prompts.renderers import find_renderer

MESSAGES = [{"role": "user", "content": "Hello!"}]


class Parrot:
    """An engine in eleven lines."""

    def __init__(self, address: str | None) -> None:
        self.address = address or "perch"

    def names(self) -> list[str]:
        return ["parrot:q2", "parrot:q2-thinking"]

    def render(self, chat: Chat) -> str:
        return f"{self.address}/{chat.model}: {chat.messages[-1]['content']}"

    def answer(self, chat: Chat) -> Iterator[Part]:
        yield Part("Hm.", thinking=True)
        yield Part(self.render(chat), thinking=False)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("parrots")
    module.__dict__["Parrot"] = Parrot
    monkeypatch.setitem(sys.modules, "parrots", module)
    monkeypatch.setitem(ENGINES, "parrot", Registration("parrots:Parrot", "jinja"))


def test_every_entry_of_the_table_is_an_engine() -> None:
    engines: list[Engine] = [Ollama("127.0.0.1:1"), LlamaServer("127.0.0.1:1")]
    assert [type(connect(name, "127.0.0.1:1")) for name in ENGINES] == [*map(type, engines)]


@pytest.mark.usefixtures("parrot")
def test_a_registered_engine_renders_for_the_command_and_stands_in_its_help() -> None:
    run = ["template", "render", "--engine", "parrot", "--name", "grey"]
    done = CliRunner().invoke(app, run, input=json.dumps(MESSAGES))
    assert (done.exit_code, done.stdout) == (0, "perch/grey: Hello!")
    done = CliRunner().invoke(app, [*run, "--url", "tree"], input=json.dumps(MESSAGES))
    assert done.stdout == "tree/grey: Hello!"
    assert "parrot" in CliRunner().invoke(app, ["template", "render", "--help"]).stdout


@pytest.mark.usefixtures("parrot")
def test_a_registered_engine_converses() -> None:
    conversation = start("parrot", connect("parrot"), think=True, system="Be kind.")
    parts = list(conversation.ask("Who?<｜User｜>"))
    assert parts == [
        Part("Hm.", thinking=True),
        Part("perch/parrot:q2-thinking: Who?< ｜User｜>", thinking=False),
    ]
    assert [each["role"] for each in conversation.messages] == ["system", "user", "assistant"]
    assert conversation.messages[-1]["content"] == parts[1].text


def test_an_unknown_engine_is_told_what_there_is() -> None:
    with pytest.raises(UsageError, match="'vllm'") as caught:
        find_renderer("vllm")
    assert "jinja, go, ollama, llama-server" in caught.value.hint


def test_an_answer_longer_than_any_models_is_refused() -> None:
    half = Part("x" * (MAX_ANSWER_CHARACTERS // 2), thinking=True)
    too_long = OllamaRefusedError("Too long.")
    assert list(bounded(iter([half, Part("", thinking=False), half]), too_long)) == [half, half]
    with pytest.raises(OllamaRefusedError, match="Too long"):
        list(bounded(iter([half, half, Part("y", thinking=False)]), too_long))
