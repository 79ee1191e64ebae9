"""One rule for proxies: listing and bytes go the same way, and nonsense is told by its variable."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dsollama.errors import UsageError
from dsollama.net.proxies import proxy_for
from socks_server import socks_proxy

from .conftest import dsollama
from conftest import Bench

INSTALL = ("install", "UD-Q2_K_XL", "--yes")
HUB = "https://huggingface.co/x"


def _environment(bench: Bench) -> dict[str, str]:
    return {"HF_ENDPOINT": bench.hub.endpoint, "OLLAMA_MODELS": str(bench.store)}


@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_listing_and_bytes_go_through_a_socks_proxy(
    variable: str, scheme: str, bench: Bench
) -> None:
    with socks_proxy() as proxy:
        done = dsollama(*INSTALL, **_environment(bench), **{variable: f"{scheme}://{proxy.host}"})
    assert done.returncode == 0, done.stderr
    servers = {address.removeprefix("http://") for address in (bench.hub.endpoint, bench.hub.cdn)}
    assert set(proxy.asked) == servers


def test_the_proxy_resolves_the_hub_s_name_and_hears_the_password(bench: Bench) -> None:
    port = bench.hub.endpoint.rpartition(":")[2]
    with socks_proxy("me:a/b@c") as proxy:
        proxy.names["hub.invalid"] = "127.0.0.1"
        environment = _environment(bench) | {"HF_ENDPOINT": f"http://hub.invalid:{port}"}
        environment["ALL_PROXY"] = f"socks5://me:a%2Fb%40c@{proxy.host}"
        done = dsollama(*INSTALL, **environment)
    assert done.returncode == 0, done.stderr
    assert f"hub.invalid:{port}" in proxy.asked
    assert set(proxy.users) == {"me:a/b@c"}


def test_a_hub_that_no_proxy_names_is_asked_without(bench: Bench) -> None:
    environment = _environment(bench) | {"ALL_PROXY": "socks5://127.0.0.1:1"}
    done = dsollama(*INSTALL, **environment, NO_PROXY="localhost,127.0.0.1")
    assert done.returncode == 0, done.stderr


def test_a_socks_proxy_that_refuses_is_told(bench: Bench) -> None:
    with socks_proxy(refuses=True) as proxy:
        environment = _environment(bench) | {"ALL_PROXY": f"socks5h://me:secret@{proxy.host}"}
        done = dsollama(*INSTALL, **environment)
    assert done.returncode == 3
    assert "\nError: The Hub at " in done.stderr
    assert "secret" not in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        (" http://proxy:3128/ ", "http://proxy:3128"),
        ("https://me:p@proxy", "https://me:p@proxy"),
        ("socks5://proxy", "socks5h://proxy:1080"),
        ("SOCKS5H://[::1]:9", "socks5h://[::1]:9"),
        ("", None),
        ("  ", None),
    ],
)
def test_a_proxy_is_read(value: str, found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert proxy_for(HUB) == found


@pytest.mark.parametrize(
    "value",
    [
        "http://proxy:99999", "http://proxy:port", "http://[::1", "http://", "http://:8080", "://",
        "http://a b:1", "http://me:secret@:1", "socks5://", "http://pro\x7fxy",
    ],
)  # fmt: skip
def test_a_proxy_that_is_no_address_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageError, match=r"^ALL_PROXY names ") as caught:
        proxy_for(HUB)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "ftp", "quic"])
def test_a_proxy_of_another_kind_is_told(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"{scheme}://proxy:1")
    with pytest.raises(UsageError, match=rf"^https_proxy names a '{scheme}' proxy, which dsollama"):
        proxy_for(HUB)


@pytest.mark.parametrize(
    "value", ["huggingface.co", ".co", "*", "other, huggingface.co ", "huggingface.co:443,[::1"]
)
def test_an_address_that_no_proxy_names(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", value)
    assert proxy_for(f"{HUB}") is None or value == "huggingface.co:443,[::1"


@pytest.mark.parametrize("value", ["[::1", "10.0.0.0/99", "//", ",,", "\x7f", "http://x", "*.*"])
def test_nonsense_in_no_proxy_is_passed_over(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", value)
    assert proxy_for(HUB) == "http://proxy:1"


def test_the_program_tells_a_proxy_that_is_none_before_it_asks(bench: Bench) -> None:
    environment = _environment(bench) | {"HTTP_PROXY": "http://me:secret@127.0.0.1:99999"}
    done = dsollama(*INSTALL, **environment)
    assert done.returncode == 2
    assert "\nError: HTTP_PROXY names a proxy and is no address." in done.stderr
    assert "secret" not in done.stderr
    assert bench.hub.requests == []


def test_a_model_s_files_name_no_proxy(bench: Bench, tmp_path: Path) -> None:
    with socks_proxy("me:secret") as proxy:
        environment = _environment(bench) | {"ALL_PROXY": f"socks5h://me:secret@{proxy.host}"}
        done = dsollama(*INSTALL, **environment)
    assert done.returncode == 0, done.stderr
    assert not [path for path in tmp_path.rglob("*.json") if b"secret" in path.read_bytes()]


@contextmanager
def _http_proxy(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A proxy that passes plain requests on, by http or https; yields its host and what it saw."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = urlsplit(self.path)
            onward = http.client.HTTPConnection(parts.hostname or "", parts.port)
            onward.request(self.command, self.path, headers=dict(self.headers))
            answer = onward.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_listing_and_bytes_go_through_a_proxy_by_http_or_https(
    scheme: str, bench: Bench, server_context: ssl.SSLContext, authority_file: Path
) -> None:
    with _http_proxy(server_context if scheme == "https" else None) as (host, asked):
        environment = _environment(bench) | {"HTTP_PROXY": f"{scheme}://{host}"}
        done = dsollama(*INSTALL, SSL_CERT_FILE=str(authority_file), **environment)
    assert done.returncode == 0, done.stderr
    assert any(address.startswith(bench.hub.endpoint) for address in asked)
    assert any(address.startswith(bench.hub.cdn) for address in asked)
