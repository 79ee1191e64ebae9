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
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from dsollama.errors import (
    DsollamaError,
    InterruptedByUserError,
    NotEnoughDiskError,
    NotInstalledError,
    OllamaRefusedError,
    StoreNotWritableError,
)
from dsollama.events import BytesMoved, Listener, Noted, StepStarted
from dsollama.install.build import Made, make
from dsollama.install.destination import Installed
from dsollama.install.naming import PlannedModel, Spelled, spell
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.recheck import note_right
from dsollama.install.register import MergedFile, keep
from dsollama.install.replacing import Replaced, require_agreed
from dsollama.install.server_names import find_replaced_there, list_models
from dsollama.install.server_records import (
    Registered,
    begin,
    read_begun,
    read_registered,
    remember,
)
from dsollama.install.staging import remove_leftovers
from dsollama.install.state import look
from dsollama.manifest.layers import MODEL, layer_entry, manifest_bytes
from dsollama.ollama.address import is_this_machine
from dsollama.ollama.handover import hand_over
from dsollama.ollama.shapes import Progress
from dsollama.ollama.upload import Blobs
from dsollama.store.files import remove_if_empty
from dsollama.store.store import Store
from dsollama.store.uploading import uploading
from dsollama.units import format_bytes

COPIES = 3
"""Times the model's size that the server's disk takes while it registers the first name: the
upload, llama-quantize's copy, and the copy of that which becomes the blob (0.33.0: 2.9 to 3.0)."""

COPY_SHARE = 50
"""A copy that llama-quantize makes differs in size by less than this part of it."""

_RELEASE_TAG = "dsollama-release"


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
        registered = _still_registered(plan, Blobs(self.address))
        if registered is None:
            return here
        return replace(here, installed=registered.upload, needed=0, resumed=0)

    def replaced(self, plan: InstallPlan) -> tuple[Replaced, ...]:
        """Return what the server would lose, as far as it tells."""
        server = Blobs(self.address)
        known = _known(plan, plan.state.installed, _still_registered(plan, server))
        return _replaced(plan, server, known)

    def notes(self, plan: InstallPlan) -> tuple[str, ...]:
        """Say what a server on another machine needs while it registers the model."""
        if is_this_machine(self.address) or _still_registered(plan, Blobs(self.address)):
            return ()
        size = format_bytes(plan.size)
        note = (
            f"The Ollama at {self.address} copies the model when it registers it: while at work it "
            f"takes up to {COPIES} x {size} of its disk, afterwards {size}. Its copy has another "
            "digest."
        )
        return (note,)

    def install(self, plan: InstallPlan, listener: Listener, connections: int) -> Installed:
        """Install as planned; a failure keeps the merged file here.

        Raises:
            DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
        """
        began = time.monotonic()
        server = Blobs(self.address)
        server.version()
        made = None
        with _interruptible(), self._told(), uploading(Store(self.root)) as alone:
            registered = _still_registered(plan, server)
            if registered is None:
                made = self._made(plan, listener, connections)
                registered = self._uploaded(plan, made.digest, server, listener)
            else:  # templates may be those of an earlier dsollama
                _require_agreed(plan, server, registered.upload, registered)
                _create_from(registered, plan.models, server, listener)
                remember(plan, server.address, registered)
            _release(registered, server, listener)
            if alone():  # else another run sends the file to another server, or will
                self._forget_merged(registered.upload)
        return Installed(
            names=tuple(str(model.name) for model in plan.models),
            digest=registered.weights,
            size=plan.size,
            moved=made.moved if made else 0,
            copied=made.copied if made else 0,
            resumed=plan.state.resumed,
            seconds=time.monotonic() - began,
            store=self.root,
            unchecked=plan.unchecked,
        )

    def _made(self, plan: InstallPlan, listener: Listener, connections: int) -> Made:
        """Have the merged file as a blob of the staging folder, which no name uses."""
        store = Store(self.root)

        def keep_it(staging: Path, merged: MergedFile) -> None:
            keep(plan, store, staging, merged)

        made = make(plan, store, keep_it, listener, connections)
        if made.was_there:
            remove_leftovers(store, plan.key)
        note_right(store, made.digest)
        return made

    def _uploaded(
        self, plan: InstallPlan, digest: str, server: Blobs, listener: Listener
    ) -> Registered:
        listener(StepStarted("upload", f"{format_bytes(plan.size)} to {server.address}"))
        server.upload(digest, Store(self.root).blob_path(digest), listener)
        _require_agreed(plan, server, digest, None)
        return _register(plan, digest, server, listener)

    def _forget_merged(self, digest: str) -> None:
        """Delete the merged file, which the server has now."""
        store = Store(self.root)
        if not store.root.exists():
            return
        with store.changing():
            blob = store.blob_path(digest)
            blob.unlink(missing_ok=True)
            store.ledger.remove(digest)
            own = (store.own / name for name in ("staging", "tmp", "ledger"))
            for folder in (blob.parent, *own):
                remove_if_empty(folder)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what helps where the folder is no store's: another one for the merged file."""
        try:
            yield
        except (NotEnoughDiskError, StoreNotWritableError) as error:
            error.hint = f"The merged file waits in {self.root}: give --staging another folder."
            raise


def _known(install: InstallPlan, digest: str | None, registered: Registered | None) -> set[str]:
    """Return the digests that the install's weights are known to have on the server."""
    known = {digest} if digest else set()
    if registered is not None:
        known |= {registered.upload, registered.weights}
    if not install.layout:
        known.add(f"sha256:{install.shards[0].sha256}")
    return known


def _require_agreed(
    install: InstallPlan, server: Blobs, digest: str, registered: Registered | None
) -> None:
    """Ask the server once more: hours may lie between plan and end.

    Raises:
        NameTakenError: a name has become another model's.
    """
    found = _replaced(install, server, _known(install, digest, registered))
    require_agreed(found, install.replaces)
    begin(install, server.address)


def _replaced(install: InstallPlan, server: Blobs, known: Collection[str]) -> tuple[Replaced, ...]:
    """Return what would be replaced, but for what a killed run of this install has made there.

    That has a digest which only that run would have learned, and the size of the weights.
    """
    begun = read_begun(install).get(server.address, ())
    most = install.size // COPY_SHARE
    return tuple(
        each
        for each in find_replaced_there(server, install.models, known.__contains__)
        if str(each.name) not in begun or abs(each.size - install.size) > most
    )


def create_body(model: PlannedModel) -> dict[str, Any]:
    """Return what /api/create is told of a name, but for its weights."""
    modelfile = model.modelfile
    body: dict[str, Any] = {"model": str(model.name)}
    if modelfile.template is not None:
        body["template"] = modelfile.template
    if modelfile.system:
        body["system"] = modelfile.system
    if modelfile.params:
        body["parameters"] = dict(modelfile.params)
    return body


def _register(install: InstallPlan, digest: str, server: Blobs, listener: Listener) -> Registered:
    """Give the server the names for the file that it has, and remember what it has."""
    first, *others = install.models
    if is_this_machine(server.address) and _handed_over(install, digest, server, listener):
        registered = Registered(digest, digest, str(first.name))
        remember(install, server.address, registered)
        return registered
    listener(StepStarted("register", f"{first.name} (Ollama copies the weights)"))
    server.create(create_body(first) | {"files": {"model.gguf": digest}}, _Progress(listener))
    weights = server.weights(str(first.name)) or digest
    registered = Registered(digest, weights, str(first.name))
    remember(install, server.address, registered)
    _create_from(registered, others, server, listener)
    return registered


def _handed_over(install: InstallPlan, digest: str, server: Blobs, listener: Listener) -> bool:
    """Register the names without a copy; False where the server cannot reach this process."""
    weights = layer_entry(MODEL, digest, install.size)
    manifests = {}
    for model in install.models:
        for layer in (model.config, *model.small):
            server.put(layer.digest, layer.data)
        manifests[str(model.name)] = manifest_bytes(model.config, weights, model.small)
    listener(StepStarted("register", ", ".join(manifests)))
    try:
        hand_over(server, manifests)
    except (OllamaRefusedError, NotInstalledError) as error:
        listener(Noted(f"Ollama cannot take the file as it is, and makes a copy of it. {error}"))
        return False
    return True


def _create_from(
    registered: Registered, models: Iterable[PlannedModel], server: Blobs, listener: Listener
) -> None:
    for model in models:
        listener(StepStarted("register", str(model.name)))
        server.create(create_body(model) | {"from": registered.name}, _Progress(listener))


def _release(registered: Registered, server: Blobs, listener: Listener) -> None:
    """Let the server delete the uploaded file, of which it has made a copy.

    The API deletes only what a model names, and only a draft is named without being copied. So a
    model for a moment has it as its draft; what another model uses stays.
    """
    if registered.upload == registered.weights:
        return
    name = f"{registered.name.rsplit(':', 1)[0]}:{_RELEASE_TAG}"
    draft = {"draft.gguf": registered.upload}
    try:
        if not server.has(registered.upload):
            return
        server.create({"model": name, "from": registered.name, "draft_files": draft}, _ignore)
        server.delete(name)
        left = "it names no drafts" if server.has(registered.upload) else ""
    except DsollamaError as error:
        left = str(error)
    if left:
        listener(Noted(f"The server keeps the uploaded file until its next start: {left}"))


def _still_registered(install: InstallPlan, server: Blobs) -> Registered | None:
    """Return what this server has of the shards, if it still has it."""
    found = read_registered(install).get(server.address)
    if found is None:
        return None
    names = (found.name, *(str(model.name) for model in install.models))
    name = next((each for each in names if server.weights(each) == found.weights), None)
    return structs.replace(found, name=name) if name else None


class _Progress:
    """Passes the server's progress on: bytes where it says them, else its new words."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._said = ""

    def __call__(self, line: Progress) -> None:
        done, total = line.completed, line.total
        if done is not None and total is not None and 0 <= done <= total:
            self._listener(BytesMoved("register", done, total, 0, 1, 1))
        said = line.status[:200]
        if said != self._said:
            self._said = said
            self._listener(Noted(f"Ollama: {said}"))


def _ignore(_line: Progress) -> None:
    """The caller does not want to know."""


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            "Stopped.",
            "Run the same command again: what was downloaded is kept, an upload begins again.",
        ) from error
