"""Every source: by the address that a user types, or by the name that the ledger keeps.

A new source is a module with a class like these, and its place in `_KINDS`.
"""

from __future__ import annotations

from dsollama.errors import UsageError
from dsollama.sources.huggingface import HuggingFace
from dsollama.sources.source import Source
from dsollama.sources.web_folder import WebFolder

_KINDS = (WebFolder,)
"""Besides a Hub, which HF_ENDPOINT names; the first that knows an address or a name takes it."""


def source_typed(url: str) -> Source:
    """Return the source at an address that a user types (`--from-url`).

    Raises:
        UsageError: it is no address of a source.
    """
    for kind in _KINDS:
        found = kind.typed(url)
        if found is not None:
            return found
    raise UsageError(
        "--from-url names no folder of a web server.", "It is written https://HOST/FOLDER."
    )


def source_named(name: str, *, trusted: str) -> Source:
    """Return the source that the ledger or a journal calls `name`.

    Args:
        name: `Source.name`; what no other kind knows is a Hub's address.
        trusted: the Hub of the settings, which alone gets the token.
    """
    for kind in _KINDS:
        found = kind.named(name)
        if found is not None:
            return found
    return HuggingFace(name, anonymous=name != trusted)
