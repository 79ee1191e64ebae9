"""Whether it lists the model is asked of an Ollama after the install: what it does is a note."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from faults.scene import Scene, case
from peak import peak_bytes, watched
from rogue import Answer, answers, answers_json, by_path, head, rogue, sends

SERVERS = "What listens at OLLAMA_HOST"
NOTE = "cannot be asked whether it lists it"
MAX_BYTES = 256 * 2**20
JSON_HEAD = head(headers={"Content-Type": "application/json"})
CHUNKED = head(headers={"Transfer-Encoding": "chunked"})
TRICKLE_SECONDS = 0.05


def _meet(scene: Scene, answer: Answer) -> Iterator[None]:
    """Have the install end beside such a server, within the memory that is promised."""
    note = scene.tmp / "peak"
    scene.prefix = watched(note)
    with rogue(answer) as server:
        scene.environment["OLLAMA_HOST"] = server.host
        yield
        assert server.visits, "nobody asked"
    assert peak_bytes(note) < MAX_BYTES


@case(SERVERS, "an answer without an end", says=NOTE)
def endless_answer(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(JSON_HEAD, b"x" * 2**16))


@case(SERVERS, "blanks without an end", says=NOTE)
def endless_blanks(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(JSON_HEAD, b" \n" * 2**15))


@case(SERVERS, "an answer that unpacks to 400 MB", says=NOTE)
def packed_answer(scene: Scene) -> Iterator[None]:
    packed = gzip.compress(b'{"models":"' + b"x" * 400_000_000, 1)
    length = str(len(packed))
    start = head(headers={"Content-Encoding": "gzip", "Content-Length": length})
    yield from _meet(scene, sends(start + packed))


@case(SERVERS, "a byte at a time", says=NOTE)
def slow_answer(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(JSON_HEAD, b" ", TRICKLE_SECONDS))


@case(SERVERS, "the head of an answer, a byte at a time", says=NOTE)
def slow_answer_head(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(b"HTTP/1.1 200 OK\r\nX: ", b"x", TRICKLE_SECONDS))


@case(SERVERS, "headers without an end", says=NOTE)
def endless_headers(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000))


@case(SERVERS, "`100 Continue` without an end", says=NOTE)
def endless_continue(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000))


@case(SERVERS, "a chunk whose extension has no end", says=NOTE)
def endless_extension(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(CHUNKED + b"1;", b"x" * 2**16))


@case(SERVERS, "silence", says=NOTE)
def silent_server(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(b""))


@case(SERVERS, "JSON of other types", says=NOTE)
def other_types(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, answers_json({"models": {"name": [1]}}))


@case(SERVERS, "JSON half a million levels deep", says=NOTE)
def deep_answer(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, answers(b'{"models":' + b"[" * 500_000))


@case(SERVERS, "a size of 6,000 digits", says=NOTE)
def huge_number(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, answers(b'{"models":[{"name":"m","size":' + b"9" * 6000 + b"}]}"))


@case(SERVERS, "a redirect", says=NOTE)
def redirecting_server(scene: Scene) -> Iterator[None]:
    away = answers(b"", "307 Elsewhere", {"Location": "http://192.0.2.1/api/tags"})
    yield from _meet(scene, away)


@case(SERVERS, "something that is no HTTP", says=NOTE)
def no_http(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, sends(b"SSH-2.0-OpenSSH_9.2\r\n"))


@case(SERVERS, "HTTP 500", says=NOTE)
def failing_server(scene: Scene) -> Iterator[None]:
    yield from _meet(scene, answers_json({"error": "\x1b[2J\nError: out of luck"}, "500 Bad"))


@case(SERVERS, "an Ollama with another store", says="it uses another store")
def another_store(scene: Scene) -> Iterator[None]:
    listed = answers_json({"models": [{"name": "another:latest"}]})
    yield from _meet(scene, by_path({"/api/tags": listed}, answers(b"", "404 Not Found")))
