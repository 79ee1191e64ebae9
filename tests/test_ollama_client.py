"""What the `ollama` client meets, as our errors.

A server of ours answers: a real Ollama does so only when it is out of memory or broken.
"""

from __future__ import annotations

import json

import httpx
import pytest
import respx

from dsollama.errors import (
    DsollamaError,
    NotInstalledError,
    OllamaRefusedError,
    OllamaUnreachableError,
    UsageError,
)
from dsollama.ollama.address import server_address
from dsollama.ollama.client import connect, ollama_failures
from dsollama.ollama.names import listed_names
from rogue import answers, answers_json, head, rogue


@pytest.mark.parametrize(
    ("status", "words", "kind", "hint"),
    [
        ("404 Not Found", "model 'x' not found", NotInstalledError, "another store"),
        ("400 Bad", '"x" does not support thinking', OllamaRefusedError, "--think"),
        ("500 Bad", "model requires more system memory", OllamaRefusedError, "smaller quant"),
        ("500 Bad", "llama runner process has terminated", OllamaRefusedError, "journalctl"),
        ("200 OK", "an error in mid-stream", OllamaRefusedError, "journalctl"),
    ],
)
def test_an_answer_that_refuses_becomes_a_sentence_and_a_hint(
    status: str, words: str, kind: type[DsollamaError], hint: str
) -> None:
    with (
        rogue(answers_json({"error": words}, status)) as server,
        pytest.raises(kind) as caught,
        ollama_failures(server.host),
    ):
        list(connect(server.host).chat("x", messages=[], stream=True))
    assert words in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("begun", [b"", head(headers={"Content-Length": "100"}) + b'{"model"'])
def test_a_broken_connection_is_unreachable(begun: bytes) -> None:
    with (
        rogue(lambda visit: visit.send(begun)) as server,
        pytest.raises(OllamaUnreachableError),
        ollama_failures(server.host),
    ):
        list(connect(server.host).chat("x", messages=[], stream=True))


def test_a_next_line_in_an_answer_is_a_part_of_it() -> None:
    """U+0085 is no end of a line in JSON; httpx, by which the client reads lines, has it as one."""
    content = "one\u0085two\u2028three"
    line = {"model": "x", "message": {"role": "assistant", "content": content}, "done": True}
    with rogue(answers(json.dumps(line, ensure_ascii=False).encode())) as server:
        (part,) = connect(server.host).chat("x", messages=[], stream=True)
    assert part.message.content == content


def test_nothing_is_sent_by_httpx_itself() -> None:
    """httpx has no bounds: respx would catch whatever its own transport were to send."""
    with (
        rogue(answers_json({"models": []})) as server,
        respx.mock(assert_all_called=False) as caught,
    ):
        route = caught.route().mock(return_value=httpx.Response(200, json={"models": []}))
        assert connect(server.host).list().models == []
        assert not route.called
        httpx.get(server.address)
        assert route.called


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("'box:1'", "http://box:1"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str | None, address: str) -> None:
    assert server_address(host) == address


@pytest.mark.parametrize(
    "host", ["box:port", "http://[::1", "box:99999", "a b", "ftp://box", "x" * 70, "box/\x1b"]
)
def test_an_impossible_host_is_said(host: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        server_address(host)


def test_no_server_lists_nothing() -> None:
    assert listed_names("127.0.0.1:1") is None
