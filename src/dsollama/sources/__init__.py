"""Where a model's files come from: what lists them, and what opens a range of one.

`source` is the seam, `registry` knows all sources, and `local` has the files of this machine that
stand in for theirs. Knows neither GGUF nor Ollama.
"""

from __future__ import annotations

import os

from dsollama.settings import usual_endpoint


def _import_without_login() -> None:
    """Import huggingface_hub so that it never learns of a login in HF_ENDPOINT.

    It reads HF_ENDPOINT once, when it is imported, and then shows it in messages and in its log.

    Raises:
        UsageError: HF_ENDPOINT is no address; huggingface_hub would say so with a part of it.
    """
    named, public = os.environ.get("HF_ENDPOINT"), usual_endpoint().public
    if not named:
        return
    os.environ["HF_ENDPOINT"] = public
    try:
        import huggingface_hub.constants  # noqa: F401, PLC0415 - while HF_ENDPOINT is this
    finally:
        os.environ["HF_ENDPOINT"] = named


_import_without_login()
