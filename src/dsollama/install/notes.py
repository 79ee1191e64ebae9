"""What the user should know of an install before it begins, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from dsollama.catalog.models import CatalogModel
from dsollama.install.choose import Choice
from dsollama.install.contents import Contents
from dsollama.install.differences import settings_differences
from dsollama.install.plan import InstallPlan
from dsollama.install.recheck import find_alike
from dsollama.install.request import InstallRequest
from dsollama.store.store import Store
from dsollama.transfer.shard import PlannedShard


def notes_of(
    request: InstallRequest,
    model: CatalogModel | None,
    contents: Contents,
    shards: Sequence[PlannedShard],
) -> tuple[str, ...]:
    """Return what there is to know of the files."""
    choice = contents.choice
    notes = (*choice.notes, *_unchecked(request, choice, shards))
    if model and choice.others and contents.remote:
        notes += settings_differences(contents.reader, choice.others, model)
    return notes


def alike_note(plan: InstallPlan, store: Store) -> tuple[str, ...]:
    """Say that weights of the store may be the plan's."""
    if plan.state.resumed or not find_alike(plan, store):
        return ()
    note = (
        "the store has weights that begin as these: they are read first, and nothing is moved "
        "if they are the same"
    )
    return (note,)


def _unchecked(
    request: InstallRequest, choice: Choice, shards: Sequence[PlannedShard]
) -> tuple[str, ...]:
    """Say what is compared with no published digest, and what instead."""
    unchecked = [shard.path for shard in shards if not shard.published]
    if request.from_store and choice.folder:
        note = (
            f"HF_HUB_OFFLINE is set: the weights of {choice.folder} are copied as they are, and "
            "only their own digest is compared; whether the Hub has the same is not known"
        )
    elif choice.folder:
        note = (
            f"HF_HUB_OFFLINE is set: the shards of {choice.folder} are taken as they are, and only "
            "their headers are compared with each other; no published digest is"
        )
    elif unchecked:
        note = (
            f"{choice.source.name if choice.source else 'the Hub'} publishes no digest for "
            f"{len(unchecked)} of {len(shards)} files, so their bytes are compared with nothing: "
            f"{unchecked[0]}"
            f"{'...' if len(unchecked) > 1 else ''}"
        )
    else:
        return ()
    return (note,)
