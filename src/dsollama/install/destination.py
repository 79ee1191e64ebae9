"""The seam for where a model goes: a destination says what it has and needs, and takes the model.

A store is one (`to_store`), an Ollama's API another (`to_api`); `choose_destination` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dsollama.events import Listener
from dsollama.install.naming import PlannedModel, Spelled
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.replacing import Replaced


@dataclass(frozen=True)
class Installed:
    """What an install did.

    Attributes:
        names: the names that can now be run.
        digest: `sha256:HEX` of the model's blob.
        size: bytes of the blob.
        moved: bytes that came over the network now.
        copied: bytes read from files of this machine.
        resumed: bytes taken over from an earlier run.
        seconds: wall time.
        store: where.
        unchecked: files that were compared with no published digest.
    """

    names: tuple[str, ...]
    digest: str
    size: int
    moved: int
    copied: int
    resumed: int
    seconds: float
    store: Path
    unchecked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        lists = {"names": list(self.names), "unchecked": list(self.unchecked)}
        return {**vars(self), **lists, "store": str(self.store)}


class Destination(Protocol):
    """Where a model goes."""

    @property
    def root(self) -> Path:
        """The store in which the merged file is made; for an upload, its staging folder."""
        ...

    @property
    def address(self) -> str:
        """Of the Ollama that takes the model; empty where a store takes it."""
        ...

    def named(self, models: Sequence[PlannedModel]) -> Spelled:
        """Return the models under the names that have to be written here.

        Raises:
            InvalidNameError: it cannot have such a name.
            StoreNotWritableError: something is in the way.
        """
        ...

    def state(self, plan: InstallPlan) -> DiskState:
        """Return what is there of the plan at this moment, and the room for the rest."""
        ...

    def replaced(self, plan: InstallPlan) -> tuple[Replaced, ...]:
        """Return what has the plan's names and would be lost."""
        ...

    def notes(self, plan: InstallPlan) -> tuple[str, ...]:
        """Return what the user should know before, a sentence each."""
        ...

    def install(self, plan: InstallPlan, listener: Listener, connections: int) -> Installed:
        """Do what the plan says; a failure leaves everything as it was, and keeps what came.

        Args:
            plan: made for this destination.
            listener: hears of progress.
            connections: parallel connections of the download.

        Raises:
            DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
        """
        ...
