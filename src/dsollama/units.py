"""Numbers and lists as people read them. GB is 10^9 bytes, as on the Hub and in the documents."""

from __future__ import annotations

from collections.abc import Sequence

GB = 10**9
MAX_SHOWN = 10
"""Of a list in a sentence."""

_STEPS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def format_bytes(count: float) -> str:
    """Return `251 GB`, `49.8 GB`, `1.2 MB` or `17 B` (powers of ten)."""
    for size, unit in _STEPS:
        value = count / size
        if value >= 0.9995:  # noqa: PLR2004 - below, three digits of the smaller unit say more
            return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"  # noqa: PLR2004
    return f"{count:.0f} B"


def format_duration(seconds: float) -> str:
    """Return `0.8 s`, `42 s`, `5 min 03 s` or `11 h 05 min`."""
    if seconds < 9.95:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {secs:02d} s" if minutes else f"{secs} s"


def some_of(texts: Sequence[str]) -> str:
    """Return `a, b, c`, or the first MAX_SHOWN and how many more there are."""
    more = f" and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else ""
    return ", ".join(texts[:MAX_SHOWN]) + more
