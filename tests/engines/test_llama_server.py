"""llama-server as an engine: on the blob of an Ollama's store, and what broken ones say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dsollama.engines.llama_server import LlamaServer, private_llama_server
from dsollama.engines.ollama import Ollama
from dsollama.engines.protocol import Chat, Part
from dsollama.engines.registry import connect
from dsollama.errors import (
    EngineError,
    LlamaServerRefusedError,
    LlamaServerSilentError,
    LlamaServerUnreachableError,
    ProgramFailedError,
    UsageError,
)
from dsollama.ollama.private import free_port
from dsollama.settings import Patience
from dsollama.testing.tiny_model import ANSWER_TEXT, BOS, THOUGHT_TEXT
from rogue import Visit, answers, answers_json, rogue

from conftest import ROOT, Engine, without_engine

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}]
CHAT = Chat("", MESSAGES)


@pytest.fixture(scope="module")
def program() -> Path:
    found = ROOT / "llama.cpp" / "llama-server"
    if not found.is_file():
        without_engine("llama.cpp/llama-server is not built: run `make engines`")
    return found


@pytest.fixture(scope="module")
def beside(
    program: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A llama-server on the blob that an Ollama serves."""
    blob = max((engine.store / "blobs").iterdir(), key=lambda each: each.stat().st_size)
    log = tmp_path_factory.mktemp("llama-server") / "log"
    environment = dict(engine.environment) | {"LLAMA_ARG_CTX_SIZE": "20000"}
    with private_llama_server(program, blob, free_port(), environment, log) as address:
        yield address


def text(parts: Iterator[Part], *, thinking: bool) -> str:
    return "".join(part.text for part in parts if part.thinking == thinking)


@pytest.mark.engines
@pytest.mark.parametrize("think", [False, True])
def test_two_engines_on_one_blob_render_and_answer_alike(
    think: bool, beside: str, engine: Engine
) -> None:
    ours, theirs = connect("ollama", engine.address), connect("llama-server", beside)
    asked = Chat(engine.names[think], MESSAGES, think=think or None)
    bare = Chat("", MESSAGES, think=think)
    assert theirs.render(bare).removeprefix(BOS) == ours.render(asked)
    for found in (list(ours.answer(asked)), list(theirs.answer(bare))):
        assert text(iter(found), thinking=True).strip() == (THOUGHT_TEXT.strip() if think else "")
        assert text(iter(found), thinking=False) == ANSWER_TEXT


@pytest.mark.engines
def test_each_lists_its_models(beside: str, engine: Engine) -> None:
    assert set(engine.names) <= set(Ollama(engine.address).names())
    assert len(LlamaServer(beside).names()) == 1


@pytest.mark.engines
def test_it_is_stopped_when_its_block_ends(
    program: Path, single: Path, engine: Engine, tmp_path: Path
) -> None:
    environment = dict(engine.environment)
    with private_llama_server(
        program, single, free_port(), environment, tmp_path / "log"
    ) as address:
        assert LlamaServer(address).healthy()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/health", timeout=20)


@pytest.mark.engines
def test_one_that_does_not_come_up_is_told_with_its_own_words(
    program: Path, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "no.gguf").write_text("no model")
    with (
        pytest.raises(ProgramFailedError, match=r"llama-server .* did not come up: .+"),
        private_llama_server(
            program, tmp_path / "no.gguf", free_port(), engine.environment, tmp_path / "log"
        ),
    ):
        pass


def lines(*data: Any, end: str = "data: [DONE]\n\n") -> Callable[[Visit], None]:
    return answers(
        (": hello\n\n" + "".join(f"data: {json.dumps(each)}\n\n" for each in data) + end).encode()
    )


def delta(**values: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": values, "index": 0, "finish_reason": None}], "created": 1}


def test_parts_of_thought_and_answer_are_told_apart() -> None:
    stream = lines(
        delta(role="assistant", content=None), delta(reasoning_content="Hm."),
        delta(content="Hi"), delta(content="!"), {"choices": [], "usage": {"total_tokens": 1}},
    )  # fmt: skip
    with rogue(stream) as server:
        parts = list(LlamaServer(server.host).answer(CHAT))
    assert parts == [
        Part("Hm.", thinking=True), Part("Hi", thinking=False), Part("!", thinking=False)
    ]  # fmt: skip


BROKEN: dict[str, tuple[Callable[[Visit], None], type[EngineError], str]] = {
    "a refusal": (
        answers_json({"error": {"message": "no slot"}}, "500 Bad"),
        LlamaServerRefusedError, "refuses: .*no slot",
    ),
    "an empty refusal": (answers(b"", "503 Bad"), LlamaServerRefusedError, "HTTP 503"),
    "an error in the middle": (
        lines(delta(content="Hi"), {"error": {"message": "out of memory"}}),
        LlamaServerRefusedError, "out of memory",
    ),
    "no JSON": (answers(b"data: <html>\n\n"), LlamaServerRefusedError, "llama-server's JSON"),
    "another shape": (lines({"choices": 1}), LlamaServerRefusedError, "llama-server's JSON"),
    "no end": (lines(delta(content="Hi"), end=""), LlamaServerUnreachableError, "broke"),
    "silence": (lambda visit: visit.silence(), LlamaServerSilentError, "does not answer within"),
    "a redirect": (
        answers(b"", "302 Found", {"Location": "http://x/"}),
        LlamaServerRefusedError, "sends dsollama",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_has_errors_of_its_own(name: str) -> None:
    answer, kind, sentence = BROKEN[name]
    with rogue(answer) as server:
        asked = LlamaServer(server.host, Patience(server=0.3, work=0.3))
        with pytest.raises(kind, match=sentence) as caught:
            list(asked.answer(CHAT))
        assert "OLLAMA_HOST" not in caught.value.hint
    assert (caught.value.exit_code, caught.value.code[:13]) == (6, "llama-server-")


def test_nobody_there_and_no_address_are_told() -> None:
    with pytest.raises(LlamaServerUnreachableError, match="No llama-server answers") as caught:
        LlamaServer("127.0.0.1:1").render(CHAT)
    assert "--url" in caught.value.hint
    with pytest.raises(UsageError, match=r"^--url is "):
        LlamaServer("http://x:port")


@pytest.mark.parametrize("body", [b"[]", b'{"prompt": 1}', b"<html>"])
def test_a_prompt_of_another_shape_is_refused(body: bytes) -> None:
    with rogue(answers(body)) as server, pytest.raises(LlamaServerRefusedError, match="JSON"):
        LlamaServer(server.host).render(CHAT)
