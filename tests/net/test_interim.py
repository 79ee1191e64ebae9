"""Answers with 1xx, such as 103 Early Hints, come before the one that counts."""

from __future__ import annotations

import pytest

from dsollama.errors import OllamaRefusedError
from dsollama.ollama.client import connect
from dsollama.ollama.names import listed_names
from dsollama.ollama.server import Server
from dsollama.testing.loopback_hub import Fault
from rogue import Visit, rogue

from conftest import Bench

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY = b'{"models": [], "version": "0.33.0"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.mark.parametrize("count", [1, 3])
def test_an_install_passes_over_early_hints(count: int, bench: Bench) -> None:
    bench.hub.fault = lambda _request: Fault(early=count)
    bench.install()
    assert {request.server for request in bench.hub.requests} == {"hub", "cdn"}


@pytest.mark.parametrize(
    "before", [HINT, GO_ON, PROCESSING, HINT + HINT + GO_ON + PROCESSING], ids=len
)
def test_questions_to_an_ollama_pass_over_them(before: bytes) -> None:
    def answer(visit: Visit) -> None:
        visit.send(before)
        visit.send(ANSWER)

    with rogue(answer) as server:
        assert Server(server.address).version() == "0.33.0"
        assert listed_names(server.address) == set()
        assert connect(server.address).list().models == []


def test_hints_without_an_end_are_told() -> None:
    with (
        rogue(lambda visit: visit.forever(HINT)) as server,
        pytest.raises(OllamaRefusedError, match="1xx"),
    ):
        Server(server.address).version()
