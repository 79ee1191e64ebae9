"""What the store has of a planned install now: looked at again whenever time has passed."""

from __future__ import annotations

from dataclasses import replace

from dsollama.errors import NotEnoughDiskError
from dsollama.install.consume import room_needed
from dsollama.install.naming import spell_for_store
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.record import resumable_bytes
from dsollama.install.replacing import Replaced, find_replaced, require_agreed
from dsollama.store.files import disk_used
from dsollama.store.ledger import LedgerEntry
from dsollama.store.store import Store
from dsollama.units import format_bytes

SPARE_BYTES = 2**20
"""Room for small layers, manifests and the journal."""


def look(plan: InstallPlan, store: Store) -> DiskState:
    """Return what the store holds of the plan and has room for at this moment."""
    staging = store.staging(plan.key)
    total = sum(shard.size for shard in plan.shards)
    resumed = min(resumable_bytes(staging, plan.record), total)
    digest = _installed_digest(store, plan)
    needed = 0
    if digest is None:
        whole = total + plan.size if plan.program else plan.size
        needed = max(whole - disk_used(staging), 0)
        if plan.consume:
            room = room_needed(plan.shards, plan.local, store.root, plan.size)
            needed = min(needed, room)
        needed += SPARE_BYTES
    return DiskState(digest, resumed, needed, store.free_bytes())


def require_room(plan: InstallPlan, state: DiskState) -> None:
    """Refuse an install for which there is no room.

    Raises:
        NotEnoughDiskError: there is none.
    """
    if state.needed > state.free:
        raise NotEnoughDiskError(
            f"The install needs {format_bytes(state.needed)} and {plan.store} has "
            f"{format_bytes(state.free)} free.",
            "Free some space, take a smaller quant, or put the store elsewhere with --store.",
        )


def replaced_in_store(
    plan: InstallPlan, store: Store, digest: str | None = None
) -> tuple[Replaced, ...]:
    """Return what the install would replace in a store as it is now.

    Args:
        plan: its `replaces` are not looked at.
        store: where.
        digest: of the merged file, once it is known; before that the ledger tells what is the same.
    """
    same = {digest or plan.state.installed}
    ours: set[str] = set()
    for found, entry in store.ledger.entries():
        if _is_of(plan, entry):
            ours.update(entry.names)
            same |= set() if digest else {found}
    if not digest and not plan.layout:
        same.add(f"sha256:{plan.shards[0].sha256}")

    def is_same(weights: str) -> bool:
        return weights in same or (not digest and _begins_alike(plan, store, weights))

    return find_replaced(store, plan.models, is_same, ours)


def _begins_alike(plan: InstallPlan, store: Store, digest: str) -> bool:
    """Whether a blob has the merged file's size and header, so that it may be taken for the same.

    The ledger may be lost. Should the rest differ, the look under the lock finds it.
    """
    if not plan.layout or not store.has_blob(digest, plan.size):
        return False
    try:
        with store.blob_path(digest).open("rb") as blob:
            return blob.read(len(plan.head)) == plan.head
    except OSError:
        return False


def _installed_digest(store: Store, plan: InstallPlan) -> str | None:
    """Return the digest under which the ledger knows these very shards, if the blob is there.

    Another store's blob that is here already is named by its own digest.
    """
    if plan.unchecked:
        known = f"sha256:{plan.shards[0].sha256}"
        copied = bool(plan.folder and plan.shards[0].sha256) and store.has_blob(known, plan.size)
        return known if copied and store.ledger.read(known) else None
    for digest, entry in store.ledger.entries():
        if _is_of(plan, entry) and store.has_blob(digest, plan.size):
            return digest
    return None


def _is_of(plan: InstallPlan, entry: LedgerEntry) -> bool:
    """Whether a blob was made of the very shards; without digests their commit has to tell."""
    wanted = [shard.sha256 for shard in plan.shards]
    if plan.folder or [source.sha256 for source in entry.sources] != wanted:
        return False
    place = (plan.endpoint, plan.repository, plan.commit, plan.quant)
    return not plan.unchecked or place == (
        entry.endpoint,
        entry.repository,
        entry.commit,
        entry.quant,
    )


def with_final_names(plan: InstallPlan, store: Store, digest: str) -> InstallPlan:
    """Look at the store's names once more, under its lock: hours may lie between plan and end.

    Raises:
        NameTakenError: a name has become another model's.
    """
    plan = replace(plan, models=spell_for_store(plan.models, store).models)
    require_agreed(replaced_in_store(plan, store, digest), plan.replaces)
    return plan
