"""Where the repository's own settings for Ollama differ from ours.

Ollama reads files called `params` and `template` on `ollama run hf.co/...`; dsollama uses its own
and says what differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from dsollama.catalog.formats import VARIANTS
from dsollama.catalog.models import CatalogModel
from dsollama.errors import HubError
from dsollama.sources.source import ListedFile, Listing, Reader
from dsollama.templates.variants import go_template

MAX_BYTES = 2**16
"""Larger ones are not settings."""

_SHOWN = 60


def settings_differences(
    reader: Reader, repository: Listing, model: CatalogModel
) -> tuple[str, ...]:
    """Return a sentence for each difference of the repository's settings files from ours."""
    notes = []
    params = _read(reader, repository.files.get("params"))
    if params is not None:
        notes += compare_params(params, model.params)
    template = _read(reader, repository.files.get("template"))
    if template is not None:
        ours = {go_template(model.format, VARIANTS[name]) for name in model.variants}
        if template.decode("utf-8", "replace") not in ours:
            notes.append(
                f"the repository has a template of its own ({len(template)} bytes); "
                "dsollama uses its own, which is proved (docs/templates.md)"
            )
    return tuple(notes)


def compare_params(theirs: bytes, ours: Mapping[str, float | int]) -> list[str]:
    """Return a sentence for each parameter of a `params` file that differs from ours."""
    try:
        found = json.loads(theirs)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return ["the repository's params file is no JSON object; it is not used"]
    notes = []
    for key, value in sorted(found.items()):
        if ours.get(key) != value:
            shown = json.dumps({key: value})[1:-1][:_SHOWN]
            says = f"dsollama sets {ours[key]}" if key in ours else "dsollama leaves it to Ollama"
            notes.append(f"the repository's params say {shown}; {says}")
    return notes


def _read(reader: Reader, file: ListedFile | None) -> bytes | None:
    if file is None or not 0 < file.size <= MAX_BYTES:
        return None
    try:
        return reader.read(file.path, 0, file.size, file.size)
    except HubError:
        return None
