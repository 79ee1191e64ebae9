"""What huggingface_hub's client sends through: the one TLS context, the one rule for proxies."""

from __future__ import annotations

import threading

import httpx2

from dsollama.limits import limit_error
from dsollama.net.proxies import proxy_for
from dsollama.net.tls import certificate_error, tls_context


class Transport(httpx2.BaseTransport):
    """Sends each request through the proxy of its address, or through none."""

    def __init__(self) -> None:
        """Read the certificates; nothing is sent.

        Raises:
            UsageError: as `tls_context`.
        """
        self._context = tls_context()
        self._ways: dict[str | None, httpx2.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it.

        Raises:
            CertificateError: the server's certificate is not trusted.
            LimitError: there is no memory or handle for it.
            UsageError: the environment names something that is no proxy.
        """
        try:
            return self._way(proxy_for(str(request.url))).handle_request(request)
        except httpx2.TransportError as error:
            name = request.url.host
            raise limit_error(error) or certificate_error(error, name) or error from error

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            ways = list(self._ways.values())
        for way in ways:
            way.close()

    def _way(self, proxy: str | None) -> httpx2.HTTPTransport:
        with self._lock:
            if proxy not in self._ways:
                by = httpx2.Proxy(proxy) if proxy else None
                if by is not None and by.url.scheme == "https":
                    by.ssl_context = self._context
                self._ways[proxy] = httpx2.HTTPTransport(verify=self._context, proxy=by)
            return self._ways[proxy]
