"""The one rule for proxies, for every client: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

The clients' own rules differ in NO_PROXY, in SOCKS, and in what they do with a value that is no
address. Here it is read as requests reads it (by `urllib.request.getproxies`, so on macOS and
Windows the system's settings count, too), and one that is no proxy is told by its variable.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from dsollama.errors import UsageError

SOCKS_PORT = 1080
"""RFC 1928."""

_HINT = (
    "It is written http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ "
    "before the host where the proxy asks for them."
)
_SCHEMES = {
    "http": "http",
    "https": "https",
    # The proxy resolves the names, as Go has it for both: the Hub's may be unknown here.
    "socks5": "socks5h",
    "socks5h": "socks5h",
    "socks": "socks5h",  # as GNOME writes it
}


def proxy_for(address: str) -> str | None:
    """Return the URL of the proxy that leads to an address, or None where none is wanted.

    Args:
        address: the URL that is asked for.

    Raises:
        UsageError: the environment names something that is no proxy.
    """
    raw = select_proxy(address, get_environ_proxies(address)) or ""
    if not raw.strip():
        return None
    text = raw.strip() if "://" in raw else f"http://{raw.strip()}"
    scheme, _, rest = text.partition("://")
    try:
        parts = parse_url(f"{_SCHEMES[scheme.lower()]}://{rest}")
    except KeyError:
        raise UsageError(
            f"{_variable(raw, address)} names a {scheme[:20]!r} proxy, which dsollama does not "
            "speak.",
            _HINT,
        ) from None
    except (LocationParseError, ValueError) as error:
        raise _no_proxy(raw, address) from error
    if not parts.host or any(each.isspace() for each in rest):
        raise _no_proxy(raw, address)
    if parts.scheme == "socks5h" and parts.port is None:
        parts = parts._replace(port=SOCKS_PORT)
    return parts._replace(path=None, query=None, fragment=None).url


def _no_proxy(raw: str, address: str) -> UsageError:
    return UsageError(f"{_variable(raw, address)} names a proxy and is no address.", _HINT)


def _variable(value: str, address: str) -> str:
    """Return the variable that has a value; the value itself may hold a password."""
    scheme = urlsplit(address).scheme
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if os.environ.get(name) == value:
            return name
    return "The system's setting"
