r"""Two readers of an address that disagree: what is sent goes by the one that sends it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx2
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from dsollama.addresses import Endpoint, Origin, origin, public_address, redirected

HUB = "https://hub.example/o/r/resolve/main/a.gguf"
HOME = Origin("https", "hub.example", 443)

UNSAFE = [
    r"http://evil.example\@hub.example/x",
    r"https://evil.example\@hub.example/x",
    r"https:\\hub.example\x",
    r"\\evil.example/x",
    "https://hub.example@evil.example/x",
    "https://me:pw@hub.example/x",
    "https://me@hub.example/x",
    "//me@hub.example/x",
    "https://hub.example:pw@evil.example/x",
    "http://hub.example/x",
    "//hub.example:0/x",
    "https://hub.example:99999/x",
    "https://hub.example:/x",
    "https://hub.example\t.evil.example/x",
    "https://hub.example\n/x",
    "https://hub.example /x",
    "https://hub.example/\x00",
    "https://hub.example/\x7f",
    "https://hub.example/\x85",
    "https://hub.example/\xa0",
    "https://hub.example／@evil.example/x",
    "https://еvil.example/x",
    "https://%65vil.example/x",
    "https://[::1/x",
    "https://[hub.example]/x",
    "file:///etc/passwd",
    "ftp://hub.example/x",
    "javascript:alert(1)",
    "",
]


@pytest.mark.parametrize("location", UNSAFE)
def test_a_redirect_that_is_not_followed(location: str) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        redirected(HUB, location)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x?y#z", "https://hub.example/x?y#z"),
        ("b.gguf", "https://hub.example/o/r/resolve/main/b.gguf"),
        ("../x", "https://hub.example/o/r/resolve/x"),
        ("?y=1", "https://hub.example/o/r/resolve/main/a.gguf?y=1"),
        ("//cdn.example:8443/x", "https://cdn.example:8443/x"),
        ("HTTPS://CDN.example/x@y", "https://CDN.example/x@y"),
        ("https://[::1]:8080/x", "https://[::1]:8080/x"),
        ("https://cdn.example?u=http://me:pw@x/", "https://cdn.example?u=http://me:pw@x/"),
    ],
)
def test_a_redirect_that_is_followed(location: str, target: str) -> None:
    assert redirected(HUB, location) == target


def test_an_address_of_http_may_lead_to_both() -> None:
    assert redirected("http://hub.example/x", "http://cdn.example/") == "http://cdn.example/"
    assert redirected("http://hub.example/x", "https://cdn.example/") == "https://cdn.example/"


@pytest.mark.parametrize("address", ["https://hub.example", "HTTPS://Hub.Example:443/x?y#z"])
def test_the_origin_has_a_port_and_no_case(address: str) -> None:
    assert origin(address) == HOME


def _of_urllib(address: str) -> Origin:
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return Origin(parts.scheme, parts.hostname or "", port)


def _of_requests(address: str) -> Origin:
    prepared = requests.Request("GET", address).prepare().url or ""
    return _of_urllib(prepared)  # as requests.adapters reads what it sends to


def _of_httpx(address: str) -> Origin:
    url = httpx2.URL(address)
    return Origin(url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme])


ALPHABET = st.sampled_from([*"ab.:/?#@[]%\\;&= \t\n0128-_~", "hub.example", "é", "／", "%2e"])


@given(st.lists(ALPHABET, max_size=12).map("".join), st.sampled_from(["http://", "https://", "//"]))
@example("evil\\@hub.example/x", "http://")
@example("hub.example:80@evil", "http://")
@example("[::1]:8/", "https://")
def test_what_has_an_origin_is_read_alike_by_every_client(rest: str, start: str) -> None:
    try:
        target = redirected("http://hub.example/x", start + rest)
    except ValueError:
        return
    mine = origin(target)
    for read in (_of_urllib, _of_requests, _of_httpx):
        try:
            theirs = read(target)
        except (requests.RequestException, httpx2.InvalidURL, ValueError):
            continue  # then it sends nothing
        bare = theirs._replace(host=theirs.host.strip("[]"))
        assert bare == mine._replace(host=mine.host.strip("[]")), read.__name__


@pytest.mark.parametrize(
    ("text", "public", "login"),
    [
        ("https://hub.example", "https://hub.example", None),
        (" https://hub.example/hf// ", "https://hub.example/hf", None),
        ("https://me:open@hub.example:8443/hf/", "https://hub.example:8443/hf", "me:open"),
        ("https://me:p%40ss%2Fw%3Ard@hub.example", "https://hub.example", "me:p@ss/w:rd"),
        ("https://me:p@ss@hub.example", "https://hub.example", "me:p@ss"),
        ("http://key@127.0.0.1:80", "http://127.0.0.1:80", "key:"),
        ("https://@hub.example", "https://hub.example", None),
    ],
)
def test_an_endpoint_is_taken_apart(text: str, public: str, login: str | None) -> None:
    found = Endpoint.parse(text)
    assert (found.public, found.login) == (public, login)
    assert "login" not in repr(found)


def test_the_login_is_basic_authorization() -> None:
    assert Endpoint.parse("https://Aladdin:open%20sesame@h").basic == (
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # the example of RFC 7617
    )
    assert Endpoint.parse("https://h").basic is None


@pytest.mark.parametrize(
    "text",
    [
        "hub.example", "https://", "https://me:sesame@", "ftp://me:sesame@h", "https://h:port",
        "https://me:ses/ame@h", "https://me:ses#ame@h", "https://me:ses?ame@h",
        "https://me:ses ame@h", "https://me:ses[ame@h", "https://me:ses\\ame@h", "sesame",
        "https://me:sesamé@h", "https://h?sesame", "https://h#sesame", "https://h/\x00sesame",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(no address|it )") as caught:
        Endpoint.parse(text)
    assert not re.search("ses|ame|me:", str(caught.value))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("https://me:sesame@hub.example", "https://hub.example"),
        ("https://hub.example", "https://hub.example"),
        ("https://hub.example/@me", "https://hub.example/@me"),
        ("", ""),
        ("anything", "anything"),
        ("https://me:ses/ame@hub.example", ""),
        ("me:sesame@hub.example", ""),
    ],
)
def test_an_address_that_was_kept_is_shown_without_its_login(kept: str, shown: str) -> None:
    assert public_address(kept) == shown
