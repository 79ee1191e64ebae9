"""Registering an uploaded file on a server: its names, and the copy that the server makes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dsollama.errors import DsollamaError, NotInstalledError, OllamaRefusedError
from dsollama.events import BytesMoved, Listener, Noted, StepStarted
from dsollama.install.naming import PlannedModel
from dsollama.install.plan import InstallPlan
from dsollama.install.server_agreement import require_agreed_there
from dsollama.install.server_records import Registered, remember
from dsollama.manifest.layers import MODEL, layer_entry, manifest_bytes
from dsollama.ollama.address import is_this_machine
from dsollama.ollama.handover import hand_over
from dsollama.ollama.shapes import Progress
from dsollama.ollama.upload import Blobs
from dsollama.units import format_bytes

COPIES = 3
"""Times the model's size that the server's disk takes while it registers the first name: the
upload, llama-quantize's copy, and the copy of that which becomes the blob (0.33.0: 2.9 to 3.0)."""

_RELEASE_TAG = "dsollama-release"


def copy_note(plan: InstallPlan, address: str) -> str:
    """Return what a server on another machine needs; empty for one on this machine."""
    if is_this_machine(address):
        return ""
    size = format_bytes(plan.size)
    return (
        f"The Ollama at {address} copies the model when it registers it: while at work it takes "
        f"up to {COPIES} x {size} of its disk, afterwards {size}. Its copy has another digest."
    )


def upload(
    plan: InstallPlan, digest: str, blob: Path, server: Blobs, listener: Listener
) -> Registered:
    """Upload the merged file and give it its names.

    Raises:
        NameTakenError: a name has become another model's.
        EngineError: the server does not answer, or refuses.
    """
    listener(StepStarted("upload", f"{format_bytes(plan.size)} to {server.address}"))
    server.upload(digest, blob, listener)
    require_agreed_there(plan, server, digest, None)
    return _register(plan, digest, server, listener)


def renew(plan: InstallPlan, registered: Registered, server: Blobs, listener: Listener) -> None:
    """Give weights that the server has the plan's names and settings.

    Raises:
        NameTakenError: a name has become another model's.
        EngineError: the server does not answer, or refuses.
    """
    require_agreed_there(plan, server, registered.upload, registered)
    _create_from(registered, plan.models, server, listener)
    remember(plan, server.address, registered)


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


def release(registered: Registered, server: Blobs, listener: Listener) -> None:
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
