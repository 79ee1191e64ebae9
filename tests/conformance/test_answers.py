"""Content, thought and tool calls come apart on the real engine, however the marks are cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from conformance import conversations as said
from dsollama.catalog.formats import FORMATS
from dsollama.catalog.models import find_model
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_store import execute
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub
from dsollama.testing.tiny_model import (
    ANSWER,
    ANSWER_TEXT,
    END_THINK,
    EOS,
    TALK,
    THINK,
    THOUGHT,
    THOUGHT_TEXT,
    Chains,
    tiny_model,
    write_gguf,
)

pytestmark = pytest.mark.engines

CALLS, CALL, SEP = "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"
END_CALL, END_CALLS = "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"
ONE = (CALL, "get_weather", SEP, '{"city": "Paris"}', END_CALL, END_CALLS, EOS)
TWO = (
    CALL, "get_weather", SEP,
    f'{{"city": "Paris"}}{END_CALL}{CALL}get_weather{SEP}{{"city": "東京"}}', END_CALL, END_CALLS,
    EOS,
)  # fmt: skip
V3_ONE = (
    CALL,
    "function",
    SEP,
    'get_weather\n```json\n{"city": "Paris"}\n```',
    END_CALL,
    END_CALLS,
    EOS,
)
PARIS = {"city": "Paris"}
Make = Callable[[str, Chains], list[str]]


def cuts(mark: str) -> list[tuple[bytes, bytes]]:
    """Every way to cut a mark's bytes in two."""
    data = mark.encode()
    return [(data[:n], data[n:]) for n in range(1, len(data))]


@pytest.fixture(scope="module")
def models(
    ollama_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Make]]:
    """A running Ollama, and a function that installs a tiny model that says what it is told to."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "home").mkdir()
    environment = private_environment(folder / "home", folder / "models", free_port(), os.environ)
    made: dict[tuple[str, Chains], list[str]] = {}

    def make(key: str, chains: Chains) -> list[str]:
        if (key, chains) not in made:
            model = find_model(key)
            file = folder / f"m{len(made)}-UD-Q2_K_XL.gguf"
            write_gguf(
                file,
                tiny_model(read_template(FORMATS[model.format].jinja), layers=2, chains=chains),
            )
            repository = HubRepository()
            repository.add(file.name, file)
            with LoopbackHub({model.repositories[0]: repository}) as hub:
                settings = Settings(store=folder / "models", endpoint=hub.endpoint)
                name = f"m{len(made)}:x"
                plan = make_plan(InstallRequest("UD-Q2_K_XL", settings, key, name), lambda _e: None)
                made[key, chains] = list(execute(plan, lambda _e: None, connections=1).names)
            file.unlink()
        return made[key, chains]

    with private_ollama(ollama_program, environment, folder / "ollama.log") as address:
        yield address, make


def ask(address: str, name: str, messages: list[said.Message], **more: Any) -> said.Message:
    """Return the whole message of an answer, and check that the streamed one is the same."""
    body = {"model": name, "messages": messages, "keep_alive": "1s", **more}
    whole = requests.post(f"{address}/api/chat", json=body | {"stream": False}, timeout=300)
    assert whole.status_code == 200, whole.text
    streamed = requests.post(f"{address}/api/chat", json=body | {"stream": True}, timeout=300)
    parts = [json.loads(line)["message"] for line in streamed.text.splitlines()]
    message: said.Message = whole.json()["message"]
    for key in ("content", "thinking"):
        assert "".join(part.get(key, "") for part in parts) == message.get(key, "")
    calls = [call["function"] for part in parts for call in part.get("tool_calls", [])]
    assert calls == [call["function"] for call in message.get("tool_calls", [])]
    return message


@pytest.mark.parametrize(("first", "second"), cuts(END_THINK))
def test_the_end_of_a_thought_may_be_cut_anywhere(
    first: bytes, second: bytes, models: tuple[str, Make]
) -> None:
    address, make = models
    chains: Chains = ((THINK, *THOUGHT, first, second, *ANSWER, EOS), *TALK)
    message = ask(address, make("v3.1", chains)[1], [said.user("Hello!")])
    assert (message["thinking"], message["content"]) == (THOUGHT_TEXT, ANSWER_TEXT)


@pytest.mark.parametrize(("first", "second"), cuts(CALLS))
def test_the_begin_of_calls_may_be_cut_anywhere(
    first: bytes, second: bytes, models: tuple[str, Make]
) -> None:
    address, make = models
    chains: Chains = ((END_THINK, "Look", ": ", first, second, *ONE), *TALK)
    name = make("v3.1", chains)[0]
    message = ask(address, name, [said.user("Weather?")], tools=[said.WEATHER])
    assert message["content"].strip() == "Look:"
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == [PARIS]


@pytest.mark.parametrize("suffix", [0, 1], ids=["plain", "thinking"])
@pytest.mark.parametrize(("form", "cities"), [(ONE, ["Paris"]), (TWO, ["Paris", "東京"])])
def test_a_tool_round_trip(
    form: tuple[str, ...], cities: list[str], suffix: int, models: tuple[str, Make]
) -> None:
    address, make = models
    name = make("v3.1", ((END_THINK, CALLS, *form), *TALK))[suffix]
    question = said.user("Weather?")
    for think in (None, False, True) if suffix else (None, False):
        more = {} if think is None else {"think": think}
        message = ask(address, name, [question], tools=[said.WEATHER], **more)
        called = [call["function"] for call in message["tool_calls"]]
        assert [each["name"] for each in called] == ["get_weather"] * len(cities)
        assert [each["arguments"]["city"] for each in called] == cities
        outputs = [said.tool("sunny") for _ in cities]
        answer = ask(address, name, [question, message, *outputs], tools=[said.WEATHER], **more)
        assert (answer["content"], answer.get("thinking", "")) == (ANSWER_TEXT, "")


@pytest.mark.parametrize("key", ["v3-0324", "r1-0528"])
def test_a_tool_round_trip_in_the_other_dialect(key: str, models: tuple[str, Make]) -> None:
    address, make = models
    name = make(key, (("<｜Assistant｜>", CALLS, *V3_ONE), *TALK))[0]
    question = said.user("Weather?")
    message = ask(address, name, [question], tools=[said.WEATHER])
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == [PARIS]
    answer = ask(address, name, [question, message, said.tool("sunny")], tools=[said.WEATHER])
    assert answer["content"] == ANSWER_TEXT


def test_r1_thinks_in_every_answer(models: tuple[str, Make]) -> None:
    address, make = models
    name = make("r1-0528", (("<｜Assistant｜>", THINK), *TALK))[0]
    message = ask(address, name, [said.user("Hello!")])
    assert (message["thinking"], message["content"]) == (THOUGHT_TEXT, ANSWER_TEXT)


def test_no_order_of_requests_on_both_variants_ends_in_an_error(models: tuple[str, Make]) -> None:
    address, make = models
    plain, thinking = make("v3.1", TALK)
    tools = {"tools": [said.WEATHER]}
    for name, more in (
        (plain, {}), (thinking, tools), (plain, tools), (thinking, {}),
        (thinking, {"think": False}),
        (plain, {}), (thinking, tools | {"think": True}), (plain, tools),
    ):  # fmt: skip
        body = {"model": name, "messages": [said.user("Hello!")], "stream": False, **more}
        answer = requests.post(f"{address}/api/chat", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        assert answer.json()["message"]["content"] == ANSWER_TEXT


def test_bos_is_there_exactly_once(models: tuple[str, Make]) -> None:
    """In tokens: BOS, User, the byte x, Assistant and </think> are five."""
    address, make = models
    body = {"model": make("v3.1", TALK)[0], "messages": [said.user("x")], "stream": False}
    answer = requests.post(f"{address}/api/chat", json=body, timeout=300).json()
    assert answer["prompt_eval_count"] == 5
