"""The `ollama` client, with its failures as ours. Importing this costs most of a second."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import ollama

from dsollama.errors import NotInstalledError, OllamaRefusedError, OllamaUnreachableError
from dsollama.net.tls import certificate_error, tls_context
from dsollama.ollama.address import server_address

CONNECT_TIMEOUT = 5.0
"""Seconds. There is no read timeout: loading 250 GB from disk takes many minutes."""

_NOT_FOUND = 404


def connect(host: str | None) -> ollama.Client:
    """Return a client for OLLAMA_HOST as it stands; nothing is sent yet."""
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
    address = server_address(host)
    # Without https no certificate is wanted, and this context trusts none.
    trusted = address.startswith("https:")
    context = tls_context() if trusted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ollama.Client(host=address, timeout=timeout, verify=context)


@contextmanager
def ollama_failures(host: str | None) -> Iterator[None]:
    """Turn what the client raises inside the block into the errors of `dsollama.errors`."""
    try:
        yield
    except ollama.ResponseError as error:
        if error.status_code == _NOT_FOUND:
            raise NotInstalledError(
                f"The Ollama at {server_address(host)} says: {error.error}.",
                "`ollama list` shows what it has; it may use another store than dsollama did.",
            ) from error
        raise OllamaRefusedError(
            f"The Ollama at {server_address(host)} says: {error.error.strip()}",
            _advice(error.error),
        ) from error
    except (httpx.HTTPError, ConnectionError) as error:
        untrusted = certificate_error(error, server_address(host))
        if untrusted:
            raise untrusted from error
        raise OllamaUnreachableError(
            f"No Ollama answers at {server_address(host)}.",
            "Start it with `ollama serve`, or set OLLAMA_HOST to where it runs.",
        ) from error


def _advice(message: str) -> str:
    if "does not support thinking" in message:
        return "The plain name never thinks: use the name that ends in -thinking, or --think."
    if "memory" in message:
        return "Take a smaller quant, or leave experts in RAM (LLAMA_ARG_CPU_MOE=1 for `serve`)."
    return "The server's log has more (`journalctl -u ollama` where it runs as a service)."
