"""Weights that the store has already get new names only if their bytes are still right.

Reading 400 GB takes minutes to an hour, so it is not done each time. After an install, and after
each such reading, the ledger notes what the file was (`stamp_of`). Whoever writes to it, restores
it from a backup or puts another in its place changes that, and then all of it is digested again. A
disk that loses bytes by itself does not change it: for that there is `dsollama verify`.
"""

from __future__ import annotations

import shlex
from contextlib import suppress

from msgspec import structs

from dsollama.errors import DamagedBlobError, StoreError
from dsollama.events import Listener, StepStarted
from dsollama.install.merged import digest_merged
from dsollama.install.plan import InstallPlan
from dsollama.store.alike import blobs_alike
from dsollama.store.files import stamp_of, store_failures
from dsollama.store.store import DIGEST, Store
from dsollama.units import format_bytes


def require_right(plan: InstallPlan, store: Store, digest: str, listener: Listener) -> None:
    """Digest the weights that are about to get names, unless nobody has touched them since.

    Raises:
        DamagedBlobError: their bytes are not those of their digest.
        StoreError: they cannot be read.
    """
    if not store.has_blob(digest, plan.size):
        return
    path = store.blob_path(digest)
    entry = store.ledger.read(digest)
    with store_failures(path):
        if entry is not None and entry.seen == stamp_of(path.stat()):
            return
        size = format_bytes(plan.size)
        listener(StepStarted("digest", f"the weights that are in the store, {size}"))
        found = digest_merged(path, (), {}, plan.size, listener)
    if f"sha256:{found.whole}" != digest:
        raise damaged(plan, store, digest)


def note_right(store: Store, digest: str) -> None:
    """Note what the blob's file is now, when all its bytes have been digested.

    The model is installed, whether that can be noted or not.
    """
    with suppress(StoreError, OSError), store.changing():
        entry = store.ledger.read(digest)
        if entry is not None:
            seen = stamp_of(store.blob_path(digest).stat())
            store.ledger.write(digest, structs.replace(entry, seen=seen))


def require_header(plan: InstallPlan, store: Store) -> None:
    """Compare the beginning of weights that are in the store, which costs nothing.

    Raises:
        DamagedBlobError: it is not the model's header.
    """
    digest, head = plan.state.installed, plan.head
    if digest is None:
        return
    try:
        with store.blob_path(digest).open("rb") as file:
            alike = file.read(len(head)) == head
    except OSError:
        return  # the install tells it
    if not alike:
        raise damaged(plan, store, digest)


def find_alike(plan: InstallPlan, store: Store) -> list[str]:
    """Return the digests of blobs that may be the plan's weights, if digests can tell that."""
    if plan.state.installed or plan.unchecked:
        return []
    found = blobs_alike(store.root, plan.size, plan.head)
    names = [path.name.replace("-", ":", 1) for path in found]
    return [name for name in names if DIGEST.fullmatch(name)]


def damaged(plan: InstallPlan, store: Store, digest: str) -> DamagedBlobError:
    """Return the error of weights that are damaged, with what helps."""
    users = [each.name for each in store.models() if digest in {x.digest for x in each.layers}]
    if users:
        verify = ["dsollama", "verify", str(users[0]), "--repair", "--store", str(store.root)]
        hint = f"`{shlex.join(verify)}` downloads only what is damaged."
    else:
        hint = f"Remove {store.blob_path(digest)} and run the same command again."
    return DamagedBlobError(
        f"The weights of {plan.quant} are in the store ({digest[7:19]}), but they are damaged; no "
        "name was given to them.",
        hint,
    )
