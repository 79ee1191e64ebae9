"""Ollama's store as a destination: the merged file becomes a blob in it and gets its names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dsollama.events import Listener
from dsollama.install.build import make
from dsollama.install.destination import Installed
from dsollama.install.merged_file import MergedFile
from dsollama.install.naming import PlannedModel, Spelled, require_places, spell_for_store
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.recheck import note_right
from dsollama.install.register import adopt, take_over
from dsollama.install.replacing import Replaced
from dsollama.install.state import look, replaced_in_store
from dsollama.store.store import Store


@dataclass(frozen=True)
class ToStore:
    """The store at `root`; `about` is what the user should know of it, a sentence each."""

    root: Path
    about: tuple[str, ...] = ()
    address: ClassVar[str] = ""

    def named(self, models: Sequence[PlannedModel]) -> Spelled:
        """Return the models as the store spells names.

        Raises:
            InvalidNameError: its file system takes no names as long as that.
            StoreNotWritableError: something is in the way.
        """
        store = Store(self.root)
        found = spell_for_store(models, store)
        require_places(found.models, store)
        return found

    def state(self, plan: InstallPlan) -> DiskState:
        """Return what the store has of the plan."""
        return look(plan, Store(self.root))

    def replaced(self, plan: InstallPlan) -> tuple[Replaced, ...]:
        """Return what the store would lose."""
        return replaced_in_store(plan, Store(self.root))

    def notes(self, _plan: InstallPlan) -> tuple[str, ...]:
        """Return what there is to know of the store."""
        return self.about

    def install(self, plan: InstallPlan, listener: Listener, connections: int) -> Installed:
        """Install as planned; a failure leaves the store as it was, and verified bytes in staging.

        Raises:
            DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
        """
        return execute(plan, listener, connections)


def execute(plan: InstallPlan, listener: Listener, connections: int) -> Installed:
    """Install into the plan's store, as `ToStore.install`."""
    began = time.monotonic()
    store = Store(plan.store)
    final = plan

    def give_names(staging: Path, merged: MergedFile) -> None:
        nonlocal final
        final = adopt(plan, store, staging, merged, listener)

    made = make(plan, store, give_names, listener, connections)
    if made.was_there:
        final = take_over(plan, store, made.digest, listener)
    note_right(store, made.digest)
    return Installed(
        names=final.names,
        digest=made.digest,
        size=plan.size,
        moved=made.moved,
        copied=made.copied,
        resumed=made.resumed,
        seconds=time.monotonic() - began,
        store=plan.store,
        unchecked=plan.unchecked,
    )
