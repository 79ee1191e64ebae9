"""Matching the quant that a user typed against the names of what a repository holds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from dsollama.errors import AmbiguousQuantError, UnknownQuantError

# The label at a name's end: an optional UD- (Unsloth's dynamic quants), then llama.cpp's name.
_LABEL = re.compile(
    r"(?:^|[-._])(?P<label>(?:UD[-_])?"
    r"(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|FP?8))$",
    re.IGNORECASE,
)

MAX_LABEL = 64
"""Characters; so that a hostile name costs no time that grows with its square."""


def quant_label(stem: str) -> str:
    """Return the quant's label in a file's stem, such as `UD-Q2_K_XL`; the stem if none shows."""
    match = _LABEL.search(stem, max(0, len(stem) - MAX_LABEL))
    return match["label"] if match else stem


def match_quant(typed: str, labels: Iterable[str]) -> str:
    """Return the label that `typed` means.

    Case, `-` against `_`, and a missing `UD-` do not matter; an exact label wins over one that
    differs by `UD-`.

    Raises:
        UnknownQuantError: nothing matches; the message has the nearest names.
        AmbiguousQuantError: nothing was typed and there is a choice, or several match.
    """
    known = sorted(set(labels))
    if typed in known:
        return typed
    if not typed and len(known) == 1:
        return known[0]
    wanted = _key(typed)
    for keys in ([_key(label) for label in known], [_bare(label) for label in known]):
        found = [label for label, key in zip(known, keys, strict=True) if key == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousQuantError(f"{typed!r} may mean {' or '.join(found)}.")
    if not typed:
        raise AmbiguousQuantError("The repository holds several quants and none was named.")
    near = difflib.get_close_matches(wanted, [_key(label) for label in known], n=1)
    meant = [label for label in known if near and _key(label) == near[0]]
    also = f" Did you mean {meant[0]}?" if meant else ""
    raise UnknownQuantError(f"The repository holds no quant {typed!r}.{also}")


def _key(label: str) -> str:
    return label.upper().replace("-", "_")


def _bare(label: str) -> str:
    return _key(label).removeprefix("UD_")
