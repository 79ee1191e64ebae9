"""Who would like to have the token or the login, and what cannot be one."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from dsollama.testing.loopback_hub import Fault, LoopbackHub, Request
from faults import wire
from faults.scene import TOKEN, Scene, Where, case, cdn, download_2, listing, resolve

from conftest import ROOT

REDIRECTS = "Redirects that are after the token"
TOKENS = "Tokens, logins and programs"
LOGIN, PASSWORD = "me:open-sesame", "open-sesame"
NO_TOKEN = "has characters that no token has"
NOT_SAFE = "an address that is not safe: it "


def _leads_to(scene: Scene, where: Where, location: str) -> None:
    """Redirect to a place in which {evil} is the CDN under another name, and {hub} the Hub."""
    evil = scene.bench.hub.cdn.removeprefix("http://").replace("127.0.0.1", "localhost")
    home = scene.bench.hub.endpoint.removeprefix("http://")
    scene.on(where, wire.redirect(lambda _handler: location.format(evil=evil, hub=home)))


def _require_unseen(scene: Scene, host: str = "localhost") -> None:
    """Nothing was asked of another host, or nothing with the token."""
    for request in scene.bench.hub.requests:
        if host in request.headers["Host"]:
            assert not {name.lower() for name in request.headers} & {"authorization", "cookie"}


@case(REDIRECTS, r"the CDN's leads to `http://EVIL\@HUB/`, which two clients read in two ways",
      exits=3, says=NOT_SAFE)  # fmt: skip
def two_meanings_of_the_cdn(scene: Scene) -> Iterator[None]:
    _leads_to(scene, download_2, r"http://{evil}\@{hub}/x")
    yield
    assert not any("localhost" in each.headers["Host"] for each in scene.bench.hub.requests)


@case(REDIRECTS, r"the Hub's leads to `http://EVIL\@HUB/`", exits=3, says=NOT_SAFE)
def two_meanings_of_the_hub(scene: Scene) -> Iterator[None]:
    _leads_to(scene, resolve, r"http://{evil}\@{hub}/x")
    yield
    assert not any("localhost" in each.headers["Host"] for each in scene.bench.hub.requests)


@case(REDIRECTS, r"the listing's leads to `http://EVIL\@HUB/`", exits=3, says=NOT_SAFE)
def two_meanings_of_the_listing(scene: Scene) -> Iterator[None]:
    _leads_to(scene, listing, r"http://{evil}\@{hub}/x")
    yield
    assert not any("localhost" in each.headers["Host"] for each in scene.bench.hub.requests)


@case(REDIRECTS, "the CDN's names a user", exits=3, says=f"{NOT_SAFE}names a user")
def names_a_user(scene: Scene) -> Iterator[None]:
    _leads_to(scene, download_2, "http://{hub}@{evil}/x")
    yield


@case(REDIRECTS, "the CDN's has a control character", exits=3, says=f"{NOT_SAFE}has characters")
def has_a_control_character(scene: Scene) -> Iterator[None]:
    _leads_to(scene, download_2, "http://{hub}\x01.{evil}/x")
    yield


@case(REDIRECTS, "the CDN's has a space", exits=3, says=f"{NOT_SAFE}has characters")
def has_a_space(scene: Scene) -> Iterator[None]:
    _leads_to(scene, download_2, "http://{hub} @{evil}/x")
    yield


@case(REDIRECTS, "the Hub is asked by https, and leads to http", exits=3,
      says=f"{NOT_SAFE}leads from https to http")  # fmt: skip
def from_https_to_http(scene: Scene) -> Iterator[None]:
    plain = scene.bench.hub.cdn
    hub = _https_hub(scene)
    hub.fault = lambda request: (
        Fault(status=302, headers=_as_of_the_hub(f"{plain}/x")) if resolve(request) else None
    )
    yield
    assert any(resolve(each) for each in hub.requests)
    assert not any(cdn(each) for each in scene.bench.hub.requests)


@case(REDIRECTS, "the listing is asked by https, and leads to http", exits=3,
      says=f"{NOT_SAFE}leads from https to http")  # fmt: skip
def listing_from_https_to_http(scene: Scene) -> Iterator[None]:
    plain = scene.bench.hub.endpoint
    hub = _https_hub(scene)
    hub.fault = lambda request: (
        Fault(status=307, headers={"Location": plain + request.path}) if listing(request) else None
    )
    yield
    assert any(listing(each) for each in hub.requests)
    assert not scene.bench.hub.requests


@case(REDIRECTS, "the listing's leads to another name of the Hub; the token stays behind")
def listing_to_another_host(scene: Scene) -> Iterator[None]:
    def elsewhere(handler: BaseHTTPRequestHandler) -> str:
        return scene.bench.hub.endpoint.replace("127.0.0.1", "localhost") + handler.path

    scene.on(_here(listing), wire.redirect(elsewhere))
    yield
    assert any("localhost" in each.headers["Host"] for each in scene.bench.hub.requests)
    _require_unseen(scene)


@case(REDIRECTS, "the Hub's leads to another name of the Hub; the token stays behind")
def resolve_to_another_host(scene: Scene) -> Iterator[None]:
    def elsewhere(handler: BaseHTTPRequestHandler) -> str:
        path = handler.path.replace("/resolve/", "/")
        owner, repo, _commit, rest = path.lstrip("/").split("/", 3)
        cdn_address = scene.bench.hub.cdn.replace("127.0.0.1", "localhost")
        commit = scene.bench.repository.commit
        return f"{cdn_address}/{owner}/{repo}/{rest}?signature=1&commit={commit}"

    head = {"X-Repo-Commit": scene.bench.repository.commit, "X-Linked-Size": "1"}
    scene.on(resolve, wire.redirect(elsewhere, **head, **{"X-Linked-ETag": '"0"'}))
    yield
    assert any("localhost" in each.headers["Host"] for each in scene.bench.hub.requests)
    _require_unseen(scene)


@case(REDIRECTS, "the CDN's has a body without an end", exits=3, says="more than 5 times")
def redirect_with_a_body(scene: Scene) -> Iterator[None]:
    sent: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        wire.begin(handler, 302, {"Location": handler.path})
        count = 0
        try:
            while count < 2**28:
                count += handler.wfile.write(bytes(2**16))
        except OSError:
            pass
        sent.append(count)

    scene.on(download_2, endless)
    yield
    assert sent
    assert max(sent) < 2**25, "it was read"


@case(TOKENS, "HF_TOKEN has a vertical tab", exits=2, says=f"HF_TOKEN {NO_TOKEN}")
def token_with_a_control_character(scene: Scene) -> Iterator[None]:
    scene.environment["HF_TOKEN"] = "hf_open\x0bsesame"
    yield


@case(TOKENS, "the token's file is in UTF-16", exits=2, says=NO_TOKEN)
def token_in_utf_16(scene: Scene) -> Iterator[None]:
    _token_file(scene, "hf_open-sesame".encode("utf-16"))
    yield


@case(TOKENS, "the token's file is in UTF-16 without a mark", exits=2, says=NO_TOKEN)
def token_in_utf_16_without_a_mark(scene: Scene) -> Iterator[None]:
    _token_file(scene, "hf_open-sesame".encode("utf-16-le"))
    yield


@case(TOKENS, "the token's file is not UTF-8", exits=2, says=NO_TOKEN)
def token_in_latin_1(scene: Scene) -> Iterator[None]:
    _token_file(scene, b"hf_open-s\xe9same")
    yield


@case(TOKENS, "the token's file is a folder", exits=2, says="cannot be read: Is a directory")
def token_is_a_folder(scene: Scene) -> Iterator[None]:
    (scene.tmp / "token").mkdir()
    scene.environment |= {"HF_TOKEN": "", "HF_TOKEN_PATH": str(scene.tmp / "token")}
    yield


@case(TOKENS, "a gated repository, and HF_HUB_DISABLE_IMPLICIT_TOKEN is set", exits=3, says="gated")
def implicit_token_forbidden(scene: Scene) -> Iterator[None]:
    scene.bench.repository.gated, scene.bench.repository.token = True, TOKEN
    scene.environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    yield
    assert not any("uthorization" in str(each.headers) for each in scene.bench.hub.requests)
    scene.bench.repository.gated, scene.bench.repository.token = False, None


@case(TOKENS, "HF_ENDPOINT has a login: the Hub gets that and no token, the CDN neither")
def login_in_the_endpoint(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = scene.bench.hub.endpoint.replace("//", f"//{LOGIN}@")
    yield
    asked = [each for each in scene.bench.hub.requests if listing(each) or resolve(each)]
    assert {str(each.headers).count("'Basic bWU6b3Blbi1zZXNhbWU='") for each in asked} == {1}
    assert not any(TOKEN in str(each.headers) for each in scene.bench.hub.requests)
    assert not any("uthorization" in str(e.headers) for e in scene.bench.hub.requests if cdn(e))
    _require_not_written(scene)


@case(TOKENS, "HF_ENDPOINT has a login, and its server goes down in the middle", exits=3,
      says="failed 6 times in a row")  # fmt: skip
def login_is_not_kept(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = scene.bench.hub.endpoint.replace("//", f"//{LOGIN}@")
    scene.on(download_2, Fault(status=500))
    yield
    _require_not_written(scene)


@case(TOKENS, "HF_ENDPOINT has a login and no right port", exits=2, says="^HF_ENDPOINT is not the")
def login_and_a_bad_port(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = f"https://{LOGIN}@hub.example:port"
    yield


@case(TOKENS, "a `/` of HF_ENDPOINT's password is not encoded", exits=2,
      says="^HF_ENDPOINT is not the")  # fmt: skip
def login_that_is_not_encoded(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = "https://me:open/sesame@hub.example"
    yield


@case(TOKENS, "a `llama-gguf-split` lies in the current folder, with which PATH begins")
def merger_in_the_current_folder(scene: Scene) -> Iterator[None]:
    right = ROOT / "llama.cpp" / "llama-gguf-split"
    if not right.is_file():
        pytest.skip("llama.cpp/llama-gguf-split is not built: run `make engines`")
    trap, caught = scene.tmp / "trap", scene.tmp / "caught"
    for name in ("llama-gguf-split", "llama.cpp/llama-gguf-split", "bin/llama-gguf-split"):
        _script(trap / name, f"open({str(caught)!r}, 'a').write(__file__)")
    scene.prefix = ["env", "-C", str(trap)]
    scene.environment["PATH"] = f".::bin:{right.parent}:{os.environ['PATH']}"
    scene.arguments = (*scene.arguments, "--merger", "llama-gguf-split")
    yield
    assert not caught.exists()


def _here(where: Callable[[Request], bool]) -> Where:
    return lambda request: where(request) and "127.0.0.1" in request.headers["Host"]


def _token_file(scene: Scene, data: bytes) -> None:
    path = scene.tmp / "token"
    path.write_bytes(data)
    scene.environment |= {"HF_TOKEN": "", "HF_TOKEN_PATH": str(path)}


def _require_not_written(scene: Scene) -> None:
    """Neither the password nor the token is in a small file of the store, or was said."""
    places = [path for path in scene.store.rglob("*") if path.is_file()]
    said = [path for path in (scene.tmp / "stdout", scene.tmp / "stderr") if path.is_file()]
    assert said
    for path in (*places, *said):
        data = path.read_bytes()[: 2**20]
        assert PASSWORD.encode() not in data, path
        assert TOKEN.encode() not in data, path


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)


def _as_of_the_hub(location: str) -> dict[str, str]:
    head = {"X-Repo-Commit": "0" * 40, "X-Linked-Size": "1", "X-Linked-ETag": '"0"'}
    return head | {"Location": location}


def _https_hub(scene: Scene) -> LoopbackHub:
    """The same repository by https, whose certificate the run trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(scene.tmp / "ca.pem")
    hub = scene.stack.enter_context(LoopbackHub(scene.bench.hub.repositories, context))
    scene.environment |= {"HF_ENDPOINT": hub.endpoint, "SSL_CERT_FILE": str(scene.tmp / "ca.pem")}
    return hub
