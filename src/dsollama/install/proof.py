"""Weights that the store has, and of which nobody wrote down that they are the Hub's.

Another dsollama's ledger may be lost, or they were copied from another store without the Hub. If
they begin as the model does, they are read before 250 GB are downloaded: each shard's digest is
computed from them and compared with the published one.
"""

from __future__ import annotations

import hashlib

from msgspec import structs

from dsollama.events import Listener, Noted, StepStarted
from dsollama.install.merged import digest_merged
from dsollama.install.merged_file import MergedFile, ledger_entry
from dsollama.install.plan import InstallPlan
from dsollama.install.recheck import find_alike
from dsollama.install.state import look
from dsollama.store.files import stamp_of, store_failures
from dsollama.store.store import Store
from dsollama.transfer.digests import Digests
from dsollama.units import format_bytes


def prove(plan: InstallPlan, store: Store, listener: Listener) -> None:
    """Write down weights of the store in the ledger if they are proved to be the plan's.

    Raises:
        StoreError: they cannot be read, or the ledger cannot be written.
    """
    state = look(plan, store)
    if state.installed or state.resumed:  # an earlier run has looked already
        return
    for digest in find_alike(plan, store):
        path = store.blob_path(digest)
        size = format_bytes(plan.size)
        listener(StepStarted("digest", f"weights in the store that begin as these, {size}"))
        with store_failures(path):
            seen = stamp_of(path.stat())
            found = digest_merged(path, plan.spans, _heads(plan), plan.size, listener)
        if _is_right(plan, found) and f"sha256:{found.whole}" == digest:
            _write_down(plan, store, digest, found, seen)
            return
        listener(Noted(f"{digest[7:19]} begins as these weights and is something else"))


def _heads(plan: InstallPlan) -> dict[int, bytes]:
    """Return what each shard has before its span; a single file is a span from its first byte."""
    if plan.layout is None:
        return {0: b""}
    return {index: header.raw for index, header in enumerate(plan.headers)}


def _is_right(plan: InstallPlan, found: Digests) -> bool:
    """Whether each shard has its published digest; one without tensors is its header."""
    digests = {index: hashlib.sha256(head).hexdigest() for index, head in _heads(plan).items()}
    spans = zip(plan.spans, found.shards, strict=True)
    digests |= {span.file: digest for span, digest in spans}
    return [digests[index] for index in range(len(plan.shards))] == [
        shard.sha256 for shard in plan.shards
    ]


def _write_down(plan: InstallPlan, store: Store, digest: str, found: Digests, seen: str) -> None:
    with store.changing():
        known = store.ledger.read(digest)
        names = known.names if known else ()
        merged = MergedFile(digest, found.prefixes, 0, 0, {})
        entry = ledger_entry(plan, merged, names)
        store.ledger.write(digest, structs.replace(entry, seen=seen))
