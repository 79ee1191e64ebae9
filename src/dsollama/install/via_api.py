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
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from dsollama.errors import (
    DsollamaError,
    InterruptedByUserError,
    NotEnoughDiskError,
    NotInstalledError,
    OllamaRefusedError,
    StoreNotWritableError,
)
from dsollama.events import BytesMoved, Event, Listener, Noted, StepStarted
from dsollama.install.execute import Installed, execute
from dsollama.install.naming import PlannedModel, spell
from dsollama.install.plan import InstallPlan
from dsollama.install.replacing import Replaced, require_agreed
from dsollama.install.via_api_names import find_replaced_there, list_models
from dsollama.manifest.layers import MODEL, layer_entry, manifest_bytes
from dsollama.manifest.manifest import Digest
from dsollama.ollama.address import is_this_machine
from dsollama.ollama.handover import hand_over
from dsollama.ollama.shapes import Progress
from dsollama.ollama.upload import Blobs
from dsollama.store.files import read_small, remove_if_empty, store_failures, write_atomically
from dsollama.store.store import Store
from dsollama.store.uploading import uploading
from dsollama.units import format_bytes

COPIES = 3
"""Times the model's size that the server's disk takes while it registers the first name: the
upload, llama-quantize's copy, and the copy of that which becomes the blob (0.33.0: 2.9 to 3.0)."""

COPY_SHARE = 50
"""A copy that llama-quantize makes differs in size by less than this part of it."""

MAX_RECORD_BYTES = 2**20
_RELEASE_TAG = "dsollama-release"
T = TypeVar("T")


class Registered(msgspec.Struct, frozen=True):
    """What a server has of a merged file.

    Attributes:
        upload: digest of the merged file.
        weights: digest of the server's own copy.
        name: a model that has them.
    """

    upload: Digest
    weights: Digest
    name: str


@dataclass(frozen=True)
class ApiPlan:
    """An install by the API.

    Attributes:
        install: the merged file and its names; its store is the staging folder.
        address: of the server.
        registered: what the server has of it already, or None.
    """

    install: InstallPlan
    address: str
    registered: Registered | None


def plan_api(install: InstallPlan, address: str) -> ApiPlan:
    """Ask the server what it has already.

    Raises:
        EngineError: it does not answer, or refuses.
    """
    server = Blobs(address)
    named = spell(install.models, [each.name for each in list_models(server)])
    notes = (*install.notes, *named.notes)
    install = replace(install, models=named.models, notes=notes)
    registered = _still_registered(install, server)
    known = _known(install, install.state.installed, registered)
    install = replace(install, replaces=_replaced(install, server, known))
    if registered is not None:
        state = replace(install.state, installed=registered.upload, needed=0, resumed=0)
        install = replace(install, state=state)
        return ApiPlan(install, address, registered)
    if is_this_machine(address):
        return ApiPlan(install, address, None)
    size = format_bytes(install.size)
    note = (
        f"The Ollama at {address} copies the model when it registers it: while at work it takes "
        f"up to {COPIES} x {size} of its disk, afterwards {size}. Its copy has another digest."
    )
    return ApiPlan(replace(install, notes=(*install.notes, note)), address, None)


def execute_api(plan: ApiPlan, listener: Listener, connections: int) -> Installed:
    """Install as planned; a failure keeps the merged file here.

    Args:
        plan: from `plan_api`.
        listener: hears of progress.
        connections: parallel connections of the download.

    Raises:
        DsollamaError: Hub, shard, store or engine errors, or InterruptedByUserError.
    """
    began = time.monotonic()
    install, server = plan.install, Blobs(plan.address)
    server.version()
    moved, copied, registered = 0, 0, plan.registered
    with _interruptible(), _told_of_staging(install), uploading(Store(install.store)) as alone:
        if registered is None:
            made = _make_merged(install, listener, connections)
            moved, copied = made.moved, made.copied
            listener(StepStarted("upload", f"{format_bytes(install.size)} to {server.address}"))
            server.upload(made.digest, Store(install.store).blob_path(made.digest), listener)
            _require_agreed(install, server, made.digest, None)
            registered = _register(install, made.digest, server, listener)
        else:  # templates may be those of an earlier dsollama
            _require_agreed(install, server, registered.upload, registered)
            _create_from(registered, install.models, server, listener)
            _remember(install, server.address, registered)
        _release(registered, server, listener)
        if alone():  # else another run sends the file to another server, or will
            _forget_merged(install, registered.upload)
    return Installed(
        names=tuple(str(model.name) for model in install.models),
        digest=registered.weights,
        size=install.size,
        moved=moved,
        copied=copied,
        resumed=install.state.resumed,
        seconds=time.monotonic() - began,
        store=install.store,
        unchecked=install.unchecked,
    )


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
    names = [str(each.name) for each in install.models]
    _write_record(_begun_path(install), _read_begun(install) | {server.address: names})


def _replaced(install: InstallPlan, server: Blobs, known: Collection[str]) -> tuple[Replaced, ...]:
    """Return what would be replaced, but for what a killed run of this install has made there.

    That has a digest which only that run would have learned, and the size of the weights.
    """
    begun = _read_begun(install).get(server.address, ())
    most = install.size // COPY_SHARE
    return tuple(
        each
        for each in find_replaced_there(server, install.models, known.__contains__)
        if str(each.name) not in begun or abs(each.size - install.size) > most
    )


def _make_merged(install: InstallPlan, listener: Listener, connections: int) -> Installed:
    """Make the merged file as a blob of the staging folder, which no name uses."""
    return execute(replace(install, models=()), _without_register(listener), connections)


@contextmanager
def _told_of_staging(install: InstallPlan) -> Iterator[None]:
    """Say what helps where the folder is no store's: another one for the merged file."""
    try:
        yield
    except (NotEnoughDiskError, StoreNotWritableError) as error:
        error.hint = f"The merged file waits in {install.store}: give --staging another folder."
        raise


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
        _remember(install, server.address, registered)
        return registered
    listener(StepStarted("register", f"{first.name} (Ollama copies the weights)"))
    server.create(create_body(first) | {"files": {"model.gguf": digest}}, _Progress(listener))
    weights = server.weights(str(first.name)) or digest
    registered = Registered(digest, weights, str(first.name))
    _remember(install, server.address, registered)
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


def _forget_merged(install: InstallPlan, digest: str) -> None:
    """Delete the merged file, which the server has now."""
    store = Store(install.store)
    if not store.root.exists():
        return
    with store.changing():
        blob = store.blob_path(digest)
        blob.unlink(missing_ok=True)
        store.ledger.remove(digest)
        for folder in (blob.parent, store.own / "staging", store.own / "tmp", store.own / "ledger"):
            remove_if_empty(folder)


def _record_path(install: InstallPlan) -> Path:
    return Store(install.store).own / "servers" / f"{install.key}.json"


def _begun_path(install: InstallPlan) -> Path:
    return Store(install.store).own / "servers" / f"{install.key}.begun.json"


def _read_records(install: InstallPlan) -> dict[str, Registered]:
    """Return what servers had of these shards by their address; empty where nothing is known."""
    return _read(_record_path(install), dict[str, Registered])


def _read_begun(install: InstallPlan) -> dict[str, list[str]]:
    """Return the names that a killed run may have given a server already, by its address.

    The server's copy of the weights has a digest that only this run would have learned.
    """
    return _read(_begun_path(install), dict[str, list[str]])


def _read(path: Path, kind: type[dict[str, T]]) -> dict[str, T]:
    try:
        return msgspec.json.decode(read_small(path, MAX_RECORD_BYTES, follow=False), type=kind)
    except (OSError, ValueError, RecursionError):
        return {}


def _remember(install: InstallPlan, address: str, registered: Registered) -> None:
    _write_record(_record_path(install), _read_records(install) | {address: registered})
    with store_failures(_begun_path(install)):
        _begun_path(install).unlink(missing_ok=True)


def _write_record(path: Path, record: object) -> None:
    temporary = path.parent.parent / "tmp" / path.name
    write_atomically(path, msgspec.json.encode(record) + b"\n", temporary)


def _still_registered(install: InstallPlan, server: Blobs) -> Registered | None:
    """Return what this server has of the shards, if it still has it."""
    found = _read_records(install).get(server.address)
    if found is None:
        return None
    names = (found.name, *(str(model.name) for model in install.models))
    name = next((each for each in names if server.weights(each) == found.weights), None)
    return structs.replace(found, name=name) if name else None


def _without_register(listener: Listener) -> Listener:
    """No name is registered here, so none is told."""

    def listen(event: Event) -> None:
        if not (isinstance(event, StepStarted) and event.step == "register"):
            listener(event)

    return listen


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
