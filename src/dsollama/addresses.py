r"""Addresses of servers: whose they are, where a redirect leads, and what of them may be shown.

Two readers of one address can disagree on its host: of `http://A\@B/` Python's urllib says B, and
urllib3 asks A. So only addresses are taken that every reader reads alike: a name or an IP number, a
port, and behind them visible ASCII without a backslash. With anything else there is no origin, and
nothing is sent.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote, urljoin

_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?#][!-\[\]-~]*)?",
    re.IGNORECASE,
)
_VISIBLE = re.compile(r"[!-\[\]-~]+")
"""ASCII without controls, spaces and the backslash."""

_WITH_LOGIN = re.compile(
    r"(?P<scheme>https?://)(?:(?P<login>[A-Za-z0-9._~!$&'()*+,;=:%@-]*)@)?(?P<rest>[^?#]*)",
    re.IGNORECASE,
)
"""The characters that RFC 3986 allows in a login, and `@`."""

_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65535


class Origin(NamedTuple):
    """To whom an address belongs; two addresses are one server's if these are the same."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Endpoint:
    """An address with a login, taken apart.

    Attributes:
        public: the address without the login, and without a slash at its end; this is what is
            shown and kept.
        login: `USER:PASSWORD`, decoded; None where there is none. It is only sent.
    """

    public: str
    login: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Take an address apart.

        Raises:
            ValueError: it is none; its words have nothing of the text, which may hold a password.
        """
        found = _WITH_LOGIN.fullmatch(text.strip())
        if found is None:
            raise ValueError("no address")
        public = (found["scheme"] + found["rest"]).rstrip("/")
        origin(public)
        user, _, password = (found["login"] or "").partition(":")
        return cls(public, f"{unquote(user)}:{unquote(password)}" if found["login"] else None)

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header, RFC 7617."""
        if self.login is None:
            return None
        return f"Basic {base64.b64encode(self.login.encode('utf-8', 'replace')).decode()}"


def origin(address: str) -> Origin:
    """Return to whom an address belongs.

    Raises:
        ValueError: it is not an address that every client reads alike, or names a user.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError("it is not the address of a server")
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _PORTS[scheme]
    if not 0 < port <= _LAST_PORT:
        raise ValueError("it has a port that there is not")
    return Origin(scheme, found["host"].lower(), port)


def redirected(address: str, location: str) -> str:
    """Return where a redirect leads.

    Args:
        address: what was asked for.
        location: the answer's Location.

    Raises:
        ValueError: with the reason why it is not followed.
    """
    if not _VISIBLE.fullmatch(location):
        raise ValueError("it has characters that no address has")
    try:
        target = urljoin(address, location)
    except ValueError as error:  # of brackets that are no IP number's
        raise ValueError("it is not the address of a server") from error
    if re.match(r"[a-z]+://[^/?#]*@", target, re.IGNORECASE):
        raise ValueError("it names a user")
    if origin(target).scheme == "http" and address[:6].lower() == "https:":
        raise ValueError("it leads from https to http")
    return target


def public_address(text: str) -> str:
    """Return an address, kept by an earlier dsollama, without a login; empty if that cannot be."""
    if "@" not in text:
        return text
    try:
        return Endpoint.parse(text).public
    except ValueError:
        return ""
