"""Where Ollama answers, from OLLAMA_HOST."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from dsollama.errors import UsageError

DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_SENDABLE = re.compile(r"[!-~]+")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what a server listens on


def server_address(host: str | None, setting: str = "OLLAMA_HOST") -> str:
    """Return the URL for a value of `setting`, as Ollama reads its OLLAMA_HOST (envconfig.Host).

    An address that only a server can mean (0.0.0.0) becomes loopback.

    Raises:
        UsageError: the value is no address.
    """
    text = (host or "").strip().strip("\"'")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        port = parts.port or (_SCHEME_PORTS.get(scheme, 0) if found else 0) or DEFAULT_PORT
        name = parts.hostname or "127.0.0.1"
        _require_sendable(scheme, name, parts.path)
    except ValueError as error:
        raise UsageError(
            f"{setting} is {_without_password(text)!r}, which is no address.",
            "It is written HOST:PORT or a URL.",
        ) from error
    name = _ANY.get(name, f"[{name}]" if ":" in name else name)
    return urlunsplit((scheme, f"{name}:{port}", parts.path.rstrip("/"), "", ""))


def _require_sendable(scheme: str, name: str, path: str) -> None:
    if scheme not in _SCHEME_PORTS:
        raise ValueError(scheme)
    if not _SENDABLE.fullmatch(name.encode("idna").decode() + path):
        raise ValueError(path)


def is_this_machine(address: str) -> bool:
    """Whether the URL of `server_address` names this machine, by any of its addresses."""
    name = urlsplit(address).hostname or ""
    with suppress(OSError, UnicodeError):
        for family, kind, number, _, place in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, kind, number) as probe:
                probe.bind(place)  # the system refuses an address that is not its own
                return True
    return False


def _without_password(text: str) -> str:
    return re.sub(r"^([^/]*//)?[^/]*@", r"\1...@", text)
