"""Take from a run's finds those that reach what no kept input reaches, the smallest first."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.targets import TARGETS

MOST = 60
"""Inputs kept of one target, so that the corpus stays small."""

LARGEST = 12_000
"""Bytes; larger inputs are not kept."""

_SOURCE = str(Path("src", "dsollama"))


def keep(found: Path, corpus: Path) -> None:
    """Copy inputs from `found`/TARGET to `corpus`/TARGET, named by their digest."""
    for name in TARGETS:
        kept = sorted((corpus / name).iterdir())
        seen: set[tuple[str, int, int]] = set()
        for path in kept:
            seen |= steps(name, path.read_bytes())
        candidates = sorted((found / name).iterdir(), key=lambda path: path.stat().st_size)
        for path in candidates:
            data = path.read_bytes()
            new = steps(name, data) - seen
            if new and len(kept) < MOST and len(data) <= LARGEST:
                target = corpus / name / hashlib.sha256(data).hexdigest()[:16]
                target.write_bytes(data)
                kept.append(target)
                seen |= new
        print(f"{name}: {len(kept)} inputs")


def steps(name: str, data: bytes) -> set[tuple[str, int, int]]:
    """Return (file, line, next line) of every step that the input takes in dsollama."""
    taken: set[tuple[str, int, int]] = set()
    last: dict[int, int] = {}

    def trace(frame: FrameType, event: str, _value: Any) -> Any:
        if _SOURCE not in frame.f_code.co_filename:
            return None
        if event in {"line", "return", "exception"}:
            here = 0 if event == "return" else frame.f_lineno
            taken.add((frame.f_code.co_filename, last.get(id(frame), 0), here))
            last[id(frame)] = here
        return trace

    sys.settrace(trace)
    try:
        TARGETS[name](data)
    finally:
        sys.settrace(None)
    return taken
