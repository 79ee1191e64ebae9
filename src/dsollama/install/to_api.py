"""The road through Ollama's API: merged here, uploaded, then registered by the server.

The merged file is made as for a store, in a staging folder that is one; only its names are left
out. It stays until the server has every name, so that a rerun downloads nothing and, where the
upload had arrived, uploads nothing.

An Ollama on this machine then takes the very manifests that a store would get (ollama.handover).
One elsewhere must `create`: Ollama 0.33.0 copies weights that it gets as a file (by llama-quantize,
with another digest) and leaves the uploaded file behind. A model made `from` another one shares its
weights. So the first name is made of the file, the others of the first name, and the uploaded file
is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dsollama.events import Listener
from dsollama.install.destination import Installed
from dsollama.install.naming import PlannedModel, Spelled, spell
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.replacing import Replaced
from dsollama.install.server_agreement import (
    known_weights,
    replaced_there,
    still_registered,
)
from dsollama.install.server_names import list_models
from dsollama.install.server_register import copy_note, release, renew, upload
from dsollama.install.state import look
from dsollama.install.waiting_file import forget_waiting, held_for_upload, make_waiting
from dsollama.ollama.upload import Blobs
from dsollama.store.store import Store


@dataclass(frozen=True)
class ToApi:
    """The Ollama at `address`; the merged file waits for its upload in the folder `root`."""

    address: str
    root: Path

    def named(self, models: Sequence[PlannedModel]) -> Spelled:
        """Return the models as the server spells names.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return spell(models, [each.name for each in list_models(Blobs(self.address))])

    def state(self, plan: InstallPlan) -> DiskState:
        """Return what the staging folder has; all is there where the server has the model."""
        here = look(plan, Store(self.root))
        registered = still_registered(plan, Blobs(self.address))
        if registered is None:
            return here
        return replace(here, installed=registered.upload, needed=0, resumed=0)

    def replaced(self, plan: InstallPlan) -> tuple[Replaced, ...]:
        """Return what the server would lose, as far as it tells."""
        server = Blobs(self.address)
        known = known_weights(plan, plan.state.installed, still_registered(plan, server))
        return replaced_there(plan, server, known)

    def notes(self, plan: InstallPlan) -> tuple[str, ...]:
        """Say what a server on another machine needs while it registers the model."""
        note = copy_note(plan, self.address)
        return () if not note or still_registered(plan, Blobs(self.address)) else (note,)

    def install(self, plan: InstallPlan, listener: Listener, connections: int) -> Installed:
        """Install as planned; a failure keeps the merged file here.

        Raises:
            DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
        """
        began = time.monotonic()
        server = Blobs(self.address)
        server.version()
        made = None
        with held_for_upload(Store(self.root)) as alone:
            registered = still_registered(plan, server)
            if registered is None:
                made = make_waiting(plan, Store(self.root), listener, connections)
                blob = Store(self.root).blob_path(made.digest)
                registered = upload(plan, made.digest, blob, server, listener)
            else:  # templates may be those of an earlier dsollama
                renew(plan, registered, server, listener)
            release(registered, server, listener)
            if alone():  # else another run sends the file to another server, or will
                forget_waiting(Store(self.root), registered.upload)
        return Installed(
            names=plan.names,
            digest=registered.weights,
            size=plan.size,
            moved=made.moved if made else 0,
            copied=made.copied if made else 0,
            resumed=plan.state.resumed,
            seconds=time.monotonic() - began,
            store=self.root,
            unchecked=plan.unchecked,
        )
