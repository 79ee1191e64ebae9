"""Sessions of requests: with the one TLS context, the one rule for proxies, and 1xx answers."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from dsollama.limits import limit_error
from dsollama.net.interim import FinalResponse
from dsollama.net.proxies import proxy_for
from dsollama.net.tls import certificate_error, tls_context


def new_session() -> requests.Session:
    """Return a session that heeds of the environment only what `net` reads: no ~/.netrc either.

    A certificate that is not trusted raises CertificateError; a variable that names no
    certificates or no proxy, UsageError.
    """
    session = _Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


class _Session(requests.Session):
    def get_redirect_target(self, _resp: requests.Response) -> None:
        """Keep requests from looking at a redirect: it would read all of its body first."""


class _Adapter(HTTPAdapter):
    """Its overridden methods are those that requests shows for this."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        """Send through the address's proxy; an untrusted certificate is told as one."""
        address = request.url or ""
        proxy = proxy_for(address)
        options["proxies"] = {urlsplit(address).scheme: proxy} if proxy else {}
        try:
            return super().send(request, *args, **options)
        except requests.RequestException as error:
            name = urlsplit(address).hostname or address
            raise limit_error(error) or certificate_error(error, name) or error from error

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Give https the one context."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": tls_context()} if host["scheme"] == "https" else {}

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Let its connections pass over answers with 1xx."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _passing_interim(pool.ConnectionCls)
        return pool

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Give a proxy by https the one context."""
        if proxy.startswith("https://"):
            options["proxy_ssl_context"] = tls_context()
        return super().proxy_manager_for(proxy, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Add no certificates of requests' own: the context has them."""
        conn.cert_reqs = "CERT_REQUIRED"


@cache
def _passing_interim(connection: Any) -> Any:
    if connection.response_class is FinalResponse:
        return connection
    return type(connection.__name__, (connection,), {"response_class": FinalResponse})
