"""The package `ollama`, imported without an environment.

It makes a client of its own at once, from OLLAMA_HOST, SSL_CERT_FILE and the proxies, and its
import fails where one of them cannot be read. That client is never asked; ours needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without_environment() -> Iterator[None]:
    names = ("OLLAMA_HOST", "SSL_CERT_FILE", "SSL_CERT_DIR")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.lower().endswith("_proxy")
    }
    for name in kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


with _without_environment():
    import ollama

__all__ = ["ollama"]
