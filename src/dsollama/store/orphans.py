"""Garbage in `blobs/`: what no manifest names, and what Ollama has not finished."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from dsollama.store.finding import (
    GRACE_SECONDS,
    NOT_OURS,
    Finding,
    Kind,
    Sweep,
    age,
    entries,
    finding,
)
from dsollama.store.manifests import ManifestFile, named, unreadable
from dsollama.store.registering import needed
from dsollama.store.store import Store
from dsollama.store.unfinished import read_removals
from dsollama.store.uploading import Uploads, uploads
from dsollama.store.walk import Seen

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
# What Ollama 0.33 writes beside its blobs: downloads, and files that have no digest yet.
_PARTIAL = re.compile(r"(sha256-[0-9a-f]{64})(-partial(-\d+)?|\.tmp)|sha256-\d+")


def blob_garbage(store: Store, manifests: Sequence[ManifestFile], now: float) -> Iterator[Finding]:
    """Find blobs that no manifest names, and what Ollama left beside the blobs."""
    downloads, all_seen = _download_ages(entries(store, "blobs"), now)
    # A pull's first blobs may be done hours before its last one and its manifest.
    pulling = not all_seen or any(each < GRACE_SECONDS for each in downloads.values())
    used = {*named(manifests), *needed(store)}
    blocked = bool(unreadable(manifests))
    removed = {digest for each in read_removals(store).values() for digest in each.digests}
    for seen in entries(store, "blobs"):
        blob, partial = (each.fullmatch(seen.path.name) for each in (_BLOB, _PARTIAL))
        digest = f"sha256:{blob[1]}" if blob else ""
        if digest in used:
            continue
        if len(seen.parts) != 1 or not (blob or partial):
            yield finding(Kind.PARTIAL, seen, NOT_OURS, Sweep.NEVER, ours=False)
        elif blob and blocked:
            why = "may be named by a manifest that cannot be read"
            yield finding(Kind.BLOB, seen, why, Sweep.NEVER, ours=False)
        elif blob and (whose := _whose(store, digest, removed)):
            why, sweep = _upload(uploads(store)) or (whose, Sweep.OWN)
            yield finding(Kind.BLOB, seen, f"no model uses it; {why}", sweep, ours=True)
        elif blob:
            busy = pulling or age(seen, now) < GRACE_SECONDS
            yield _foreign(Kind.BLOB, seen, "no model uses it; not dsollama's", busy=busy)
        else:
            busy = downloads.get(_download(seen), 0.0) < GRACE_SECONDS
            yield _foreign(Kind.PARTIAL, seen, "Ollama has not finished it", busy=busy)


def _upload(state: Uploads) -> tuple[str, Sweep] | None:
    if state is Uploads.AT_WORK:
        return "an install by the API is at work and may be uploading it", Sweep.NEVER
    if state is Uploads.WAITING:
        return "it waits for its upload; the same install would go on from there", Sweep.ALL
    return None


def _foreign(kind: Kind, seen: Seen, why: str, *, busy: bool) -> Finding:
    if busy:
        why = f"{why}, but Ollama may be at work on it"
    return finding(kind, seen, why, Sweep.NEVER if busy else Sweep.ALL, ours=False)


def _download_ages(found: Iterable[Seen], now: float) -> tuple[dict[str, float], bool]:
    """Return the age of each unfinished download, and whether all of `found` could be looked at.

    It is that of the youngest of its files.
    """
    ages: dict[str, float] = {}
    all_seen = True
    for seen in found:
        all_seen = all_seen and bool(seen.parts)
        if _PARTIAL.fullmatch(seen.path.name) and not _BLOB.fullmatch(seen.path.name):
            key = _download(seen)
            ages[key] = min(ages.get(key, now), age(seen, now))
    return ages, all_seen


def _download(seen: Seen) -> str:
    match = _PARTIAL.fullmatch(seen.path.name)
    return (match[1] if match else None) or seen.path.name


def _whose(store: Store, digest: str, removed: Collection[str]) -> str:
    """Say how a blob came from dsollama; nothing where it did not, or nobody knows."""
    entry = store.ledger.read(digest)
    if entry is not None:
        origin = f"{entry.repository} {entry.quant}".strip()
        return f"dsollama installed it from {origin}, and the same install could take it over"
    return "a removal by dsollama was interrupted" if digest in removed else ""
