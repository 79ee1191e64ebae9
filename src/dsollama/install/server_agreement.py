"""What an install would replace on a server, asked in the plan and once more before it is done."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import structs

from dsollama.install.plan import InstallPlan
from dsollama.install.replacing import Replaced, require_agreed
from dsollama.install.server_names import find_replaced_there
from dsollama.install.server_records import Registered, begin, read_begun, read_registered
from dsollama.ollama.upload import Blobs

COPY_SHARE = 50
"""A copy that llama-quantize makes differs in size by less than this part of it."""


def still_registered(install: InstallPlan, server: Blobs) -> Registered | None:
    """Return what this server has of the shards, if it still has it."""
    found = read_registered(install).get(server.address)
    if found is None:
        return None
    names = (found.name, *(str(model.name) for model in install.models))
    name = next((each for each in names if server.weights(each) == found.weights), None)
    return structs.replace(found, name=name) if name else None


def known_weights(
    install: InstallPlan, digest: str | None, registered: Registered | None
) -> set[str]:
    """Return the digests that the install's weights are known to have on the server."""
    known = {digest} if digest else set()
    if registered is not None:
        known |= {registered.upload, registered.weights}
    if not install.layout:
        known.add(f"sha256:{install.shards[0].sha256}")
    return known


def require_agreed_there(
    install: InstallPlan, server: Blobs, digest: str, registered: Registered | None
) -> None:
    """Ask the server once more: hours may lie between plan and end.

    Raises:
        NameTakenError: a name has become another model's.
    """
    found = replaced_there(install, server, known_weights(install, digest, registered))
    require_agreed(found, install.replaces)
    begin(install, server.address)


def replaced_there(
    install: InstallPlan, server: Blobs, known: Collection[str]
) -> tuple[Replaced, ...]:
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
