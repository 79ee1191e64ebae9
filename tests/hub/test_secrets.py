"""A token and a login go to HF_ENDPOINT's own server, and are found nowhere else."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dsollama.store.store import Store
from dsollama.testing.loopback_hub import Fault, LoopbackHub, Request

from conftest import TERMINUS, Bench, make_repository

TOKEN, USER, PASSWORD = "hf_verysecret", "me", "open-sesame"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = (TOKEN, PASSWORD, BASIC)


def run(bench: Bench, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def install(bench: Bench, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(bench, "install", "UD-Q2_K_XL", "--yes", **environment)


def with_login(bench: Bench) -> str:
    return bench.hub.endpoint.replace("//", f"//{USER}:{PASSWORD}@")


def left_behind(*places: Path) -> dict[str, bytes]:
    """Every file below the places, small ones whole, of the weights the beginning."""
    return {
        str(path): path.read_bytes()[: 4 * 2**20]
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }


def authorizations(bench: Bench, server: str) -> set[str | None]:
    asked = [request for request in bench.hub.requests if request.server == server]
    assert asked
    return {request.headers.get("Authorization", request.headers.get("authorization"))
            for request in asked if "agent-harnesses" not in request.path}  # fmt: skip


class Stranger:
    """Another server, on another port; it answers 404 and remembers what it was asked."""

    def __init__(self) -> None:
        asked: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.asked = asked
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    found = Stranger()
    yield found
    found.server.shutdown()
    found.server.server_close()


def redirecting(where: Callable[[Request], bool], location: str) -> Callable[[Request], Any]:
    fault = Fault(status=302, headers={"Location": location})
    return lambda request: fault if where(request) else None


PLACES: dict[str, Callable[[Request], bool]] = {
    "the listing": lambda request: request.path.startswith("/api/models/"),
    "the Hub's answer": lambda request: "/resolve/" in request.path,
    "the CDN": lambda request: request.server == "cdn",
}


TWO_MEANINGS = r"http://{evil}\@{hub}/x"


@pytest.mark.parametrize(
    ("place", "form"),
    [
        *((place, TWO_MEANINGS) for place in PLACES),
        ("the CDN", "http://{hub}@{evil}/x"),
        ("the CDN", "http://me:pw@{hub}/x"),
        ("the CDN", "http://{hub} @{evil}/x"),
        ("the CDN", "http://{evil}/\x01"),
        ("the CDN", r"\\{evil}\x"),
    ],
)  # tests/test_addresses.py has more forms
def test_a_redirect_with_two_meanings_is_refused_at_once(
    place: str, form: str, bench: Bench, stranger: Stranger
) -> None:
    hub = bench.hub.endpoint.removeprefix("http://")
    bench.hub.fault = redirecting(PLACES[place], form.format(evil=stranger.address, hub=hub))
    done = install(bench, HF_TOKEN=TOKEN)
    assert done.returncode == 3, done.stderr
    assert "to an address that is not safe: it " in done.stderr
    assert "try 2" not in done.stderr
    assert not stranger.asked
    assert authorizations(bench, "hub") == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("place", list(PLACES))
def test_a_redirect_to_a_stranger_is_followed_without_the_token(
    place: str, bench: Bench, stranger: Stranger
) -> None:
    bench.hub.fault = redirecting(PLACES[place], f"http://{stranger.address}/x")
    install(bench, HF_TOKEN=TOKEN, DSOLLAMA_MAX_WAIT="0.01")
    assert stranger.asked
    assert not any("authorization" in headers for _, headers in stranger.asked)


def test_the_redirect_s_body_is_not_read(bench: Bench) -> None:
    """requests reads all of it before it gives the answer: 30 s of it, at a GB/s."""
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(302)
        handler.send_header("Location", "/x")
        handler.end_headers()
        count = 0
        try:
            while count < 2**28:
                handler.wfile.write(bytes(2**16))
                count += 2**16
        except OSError:
            pass
        sent.append(count)

    bench.hub.fault = lambda request: Fault(answer=endless) if PLACES["the CDN"](request) else None
    done = install(bench, DSOLLAMA_MAX_WAIT="0.01")
    assert "more than 5 times" in done.stderr
    assert sent
    assert max(sent) < 2**25  # what lies in the buffers of the two sockets


def test_a_mirror_s_redirect_to_the_public_hub_has_no_token(
    bench: Bench, stranger: Stranger
) -> None:
    """huggingface_hub has a list of Hubs that get the token; here a stranger is on it."""
    bench.hub.fault = redirecting(PLACES["the Hub's answer"], f"http://{stranger.address}/x")
    code = (
        "from huggingface_hub.utils import _http\n"
        f"_http._HUB_ORIGINS |= {{_http._url_origin('http://{stranger.address}')}}\n"
        "from dsollama.cli.app import main\nmain()"
    )
    subprocess.run(
        [sys.executable, "-c", code, "install", "UD-Q2_K_XL", "--yes"],
        env=bench.environment() | {"HF_TOKEN": TOKEN, "DSOLLAMA_MAX_WAIT": "0.01"},
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert stranger.asked
    assert not any("authorization" in headers for _, headers in stranger.asked)


def test_a_login_in_the_endpoint_goes_there_alone_and_stays_nowhere(
    bench: Bench, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    told = ""
    loud = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "DSOLLAMA_TRACEBACK": "1"}
    harnesses = Fault(status=500)  # huggingface_hub logs this failure with the address
    bench.hub.fault = lambda request: harnesses if "harnesses" in request.path else None
    for arguments in (
        ("install", "UD-Q2_K_XL", "--dry-run", "--json"),
        ("install", "UD-Q2_K_XL", "--yes", "--json"),
        ("list", "--json"),
        ("show", "deepseek-v3.1-terminus:UD-Q2_K_XL", "--json"),
        ("verify", "--json"),
    ):
        done = run(bench, *arguments, HF_ENDPOINT=with_login(bench), HF_TOKEN=TOKEN, **loud)
        assert done.returncode == 0, done.stderr
        told += done.stdout + done.stderr
    assert authorizations(bench, "hub") == {f"Basic {BASIC}"}
    assert authorizations(bench, "cdn") == {None}
    left = left_behind(bench.store, home)
    assert any("ledger" in name for name in left)
    for secret in SECRETS:
        assert secret not in told
        assert not [name for name, data in left.items() if secret.encode() in data]
    (entry,) = [entry for _, entry in Store(bench.store).ledger.entries()]
    assert entry.endpoint == bench.hub.endpoint


def test_a_stopped_install_keeps_no_login_and_no_hint_has_it(bench: Bench) -> None:
    def late(request: Request) -> Fault | None:
        header = request.headers.get("Range", "").startswith("bytes=0-")
        third = request.server == "cdn" and bench.shards[2].name in request.path
        return Fault(status=500) if third and not header else None

    bench.hub.fault = late
    options = {"HF_ENDPOINT": with_login(bench), "HF_TOKEN": TOKEN, "DSOLLAMA_MAX_WAIT": "0.01"}
    done = install(bench, DSOLLAMA_CONNECTIONS="1", **options)
    assert done.returncode == 3, done.stderr
    left = left_behind(bench.store)
    assert not any(s in done.stderr + done.stdout for s in SECRETS)
    assert not [name for name, data in left.items() for s in SECRETS if s.encode() in data]
    record = bench.staged()[0] / "install.json"  # now as an earlier dsollama wrote it
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"endpoint": with_login(bench)}))
    for arguments in (("gc", "--json"), ("install", "--resume", "--dry-run", "--json")):
        done = run(bench, *arguments)
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    install(bench, **options)
    assert PASSWORD not in record.read_text()


def damage(bench: Bench) -> None:
    blob = max((bench.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")


def test_a_login_of_an_old_ledger_is_hidden_and_goes_when_it_is_written(bench: Bench) -> None:
    assert install(bench).returncode == 0
    (path,) = (bench.store / ".dsollama" / "ledger").glob("*.json")
    old = json.loads(path.read_bytes()) | {"endpoint": with_login(bench)}
    path.write_text(json.dumps(old))
    damage(bench)
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    for arguments in (("verify", "--json"), ("verify",), ("list", "--json"), ("gc", "--json")):
        done = run(bench, *arguments, **elsewhere)
        assert done.returncode == (7 if "verify" in arguments else 0), done.stderr
        assert PASSWORD not in done.stdout + done.stderr
    before = len(bench.hub.requests)
    done = run(bench, "verify", "--repair", **elsewhere)
    assert done.returncode == 0, done.stderr
    asked = bench.hub.requests[before:]
    assert asked
    assert not any("authorization" in {n.lower() for n in request.headers} for request in asked)
    assert run(bench, "install", "UD-Q2_K_XL", "--yes", "--force").returncode == 0
    assert PASSWORD not in path.read_text()


@pytest.mark.parametrize(
    "value", ["https://me:open-sesame@h:port", "me:open-sesame@h", "https://me:open/sesame@h"]
)
def test_an_endpoint_that_is_none_is_told_without_its_words(value: str, bench: Bench) -> None:
    done = install(bench, HF_ENDPOINT=value)
    assert done.returncode == 2, done.stderr
    assert "HF_ENDPOINT is not the address of a server." in done.stderr
    assert "sesame" not in done.stderr + done.stdout


def test_a_warning_of_the_hub_s_cannot_steer_the_terminal(bench: Bench) -> None:
    def warn(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(404)
        for value in ("a; plain words", "b; \x1b[2Jgone"):
            handler.send_header("X-HF-Warning", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    bench.hub.fault = lambda _request: Fault(answer=warn)
    done = install(bench)
    assert done.returncode == 3, done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("kind", ["HF_TOKEN", "file"])
def test_no_token_is_sent_where_an_implicit_one_is_forbidden(
    kind: str, bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    token = {"HF_TOKEN": TOKEN} if kind == "HF_TOKEN" else {"HF_TOKEN_PATH": str(path)}
    bench.repository.gated, bench.repository.token = True, TOKEN
    done = install(bench, HF_HUB_DISABLE_IMPLICIT_TOKEN="1", **token)
    assert done.returncode == 3, done.stderr
    assert "Hint: HF_HUB_DISABLE_IMPLICIT_TOKEN is set" in done.stderr
    assert authorizations(bench, "hub") == {None}
    assert install(bench, **token).returncode == 0


BAD_TOKENS = {
    "NUL": b"hf_very\0secret", "vertical tab": b"hf_very\x0bsecret",
    "form feed": b"hf_very\x0csecret", "a space": b"hf_very secret",
    "UTF-16": "hf_verysecret".encode("utf-16"),
    "UTF-16 without a mark": "hf_verysecret".encode("utf-16-le"), "C1": b"hf_very\x85secret",
    "Latin-1": "hf_verysecret\u00fc".encode("latin-1"), "UTF-8": "hf_verysecret\u00fc".encode(),
    "an escape": b"hf_very\x1b[2Jsecret",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(BAD_TOKENS))
def test_a_token_that_is_none_is_told_and_not_shown(
    kind: str, bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_bytes(BAD_TOKENS[kind])
    ways = [{"HF_TOKEN_PATH": str(path)}]
    if b"\0" not in BAD_TOKENS[kind]:  # which no variable can have
        ways.append({"HF_TOKEN": os.fsdecode(BAD_TOKENS[kind])})
    for way in ways:
        done = install(bench, **way, DSOLLAMA_TRACEBACK="1")
        source = "HF_TOKEN" if "HF_TOKEN" in way else str(path)
        assert done.returncode == 2, done.stderr
        assert f"Error: The token in {source} has characters that no token has." in done.stderr
        assert not any(part in done.stderr for part in ("very", "secret\n", "v\\x00e", "h\\x00f"))
    assert not bench.hub.requests


def test_a_token_file_that_cannot_be_read_is_told(bench: Bench, tmp_path: Path) -> None:
    done = install(bench, HF_TOKEN_PATH=str(tmp_path))
    assert done.returncode == 2
    assert f"The token in {tmp_path} cannot be read: Is a directory." in done.stderr
    assert install(bench, HF_HOME=os.devnull).returncode == 0


def test_a_token_that_was_to_be_fetched_and_is_not_is_told(bench: Bench) -> None:
    done = install(bench, HF_OIDC_RESOURCE="o/r")
    assert done.returncode == 3, done.stderr
    assert "Error: HF_OIDC_RESOURCE is set and gives no token (OIDCError)." in done.stderr
    fetching = {"HF_OIDC_RESOURCE": "o/r", "HF_OIDC_ID_TOKEN": TOKEN}  # the Hub answers 404 or 501
    done = install(bench, **fetching)
    assert done.returncode == 3, done.stderr
    assert "gives no token" in done.stderr
    assert TOKEN not in done.stderr


def test_no_process_that_is_started_has_a_secret_in_sight(
    shards: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """The merger is a stand-in that copies what /proc tells of it and its parent's command line."""
    told = tmp_path / "told"
    program = tmp_path / "llama-gguf-split"
    program.write_text(
        f"#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline /proc/$PPID/cmdline > {told}\nexit 1\n"
    )
    program.chmod(0o755)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", [])
        done = run(
            bench, "install", "UD-Q2_K_XL", "--yes", "--merger", "llama-gguf-split",
            HF_ENDPOINT=with_login(bench), HF_TOKEN=TOKEN, LLAMA_GGUF_SPLIT=str(program),
        )  # fmt: skip
    assert done.returncode == 6, done.stderr
    seen = told.read_bytes()
    assert b"PATH=" in seen
    assert b"--merge" in seen
    assert b"install" in seen
    assert not any(secret.encode() in seen for secret in SECRETS)
