"""What the `ollama` client raises, as our errors.

The answers are mocked with respx: a real Ollama gives them only when it is out of memory or broken.
"""

from __future__ import annotations

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

HOST = "127.0.0.1:9"
CHAT = f"http://{HOST}/api/chat"


@pytest.mark.parametrize(
    ("status", "body", "kind", "hint"),
    [
        (404, {"error": "model 'x' not found"}, NotInstalledError, "another store"),
        (400, {"error": '"x" does not support thinking'}, OllamaRefusedError, "--think"),
        (500, {"error": "model requires more system memory"}, OllamaRefusedError, "smaller quant"),
        (500, {"error": "llama runner process has terminated"}, OllamaRefusedError, "journalctl"),
    ],
)
def test_an_answer_that_refuses_becomes_a_sentence_and_a_hint(
    status: int, body: dict[str, str], kind: type[DsollamaError], hint: str
) -> None:
    with respx.mock:
        respx.post(CHAT).mock(return_value=httpx.Response(status, json=body))
        with pytest.raises(kind) as caught, ollama_failures(HOST):
            connect(HOST).chat("x", messages=[])
    assert body["error"] in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("no"), httpx.ReadError("cut"), httpx.RemoteProtocolError("odd")]
)
def test_a_broken_connection_is_unreachable(failure: Exception) -> None:
    with respx.mock:
        respx.post(CHAT).mock(side_effect=failure)
        with pytest.raises(OllamaUnreachableError), ollama_failures(HOST):
            list(connect(HOST).chat("x", messages=[], stream=True))


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


@pytest.mark.parametrize("host", ["box:port", "http://[::1", "box:99999"])
def test_an_impossible_host_is_said(host: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        server_address(host)


def test_no_server_lists_nothing() -> None:
    assert listed_names("127.0.0.1:1") is None
