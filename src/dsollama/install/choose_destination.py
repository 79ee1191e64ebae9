"""Choosing where a model goes: into Ollama's store, or through an Ollama's API."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsollama.errors import OllamaSilentError, OllamaUnreachableError, StoreNotWritableError
from dsollama.install.destination import Destination
from dsollama.install.request import Via
from dsollama.install.to_api import ToApi
from dsollama.install.to_store import ToStore
from dsollama.ollama.address import is_this_machine, server_address
from dsollama.ollama.server import Server
from dsollama.privileges import acting_as_owner
from dsollama.settings import Settings, expanded
from dsollama.store.ownership import service_notes
from dsollama.store.store import Store


@dataclass(frozen=True)
class Chosen:
    """The chosen destination.

    Attributes:
        destination: where the model goes.
        via: STORE or API.
        reason: why, in one clause.
    """

    destination: Destination
    via: Via
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return what it adds to a plan, as plain data."""
        address = self.destination.address or None
        return {"via": self.via.value, "via_reason": self.reason, "server": address}


def staging_root(settings: Settings) -> Path:
    """Return where merged files wait for their upload, unless --staging names a folder."""
    return (settings.cache or expanded("~/.cache")) / "dsollama"


def choose_destination(wanted: Via, settings: Settings, staging: Path | None = None) -> Chosen:
    """Choose; nothing is written.

    Args:
        wanted: what `--via` says.
        settings: the environment, `--store` already in it.
        staging: where a merged file waits for its upload; None for `staging_root`.

    Raises:
        StoreNotWritableError: the store cannot be written, and the API was not or cannot be taken.
        EngineError: the API was chosen, and no Ollama of at least 0.30 answers.
        UsageError: OLLAMA_HOST is no address.
    """
    address = server_address(settings.ollama_host)
    staging = staging or staging_root(settings)
    if wanted is Via.API:
        return _by_api("--via api", staging, address)
    elsewhere = not settings.store_named and not is_this_machine(address)
    if wanted is Via.AUTO and elsewhere:
        reason = f"OLLAMA_HOST names another machine, {address}"
        return _by_api(reason, staging, address)
    store = Store(settings.store)
    try:
        with acting_as_owner(settings.store):
            store.require_writable()
    except StoreNotWritableError as error:
        answers = _answers(address)
        if wanted is Via.AUTO and answers and os.geteuid() != 0:
            reason = f"{settings.store} cannot be written, and the Ollama at {address} answers"
            return _by_api(reason, staging, address)
        if answers:
            error.hint += f"\nOr hand it to the Ollama at {address}: --via api"
        raise
    reason = "--via store" if wanted is Via.STORE else _why_store(settings)
    destination = ToStore(settings.store, service_notes(store.facts()))
    return Chosen(destination, Via.STORE, reason)


def _why_store(settings: Settings) -> str:
    given = "it was named" if settings.store_named else "Ollama is on this machine"
    return f"{given}, and the store can be written"


def _by_api(reason: str, staging: Path, address: str) -> Chosen:
    Server(address).version()
    return Chosen(ToApi(address, staging), Via.API, reason)


def _answers(address: str) -> bool:
    try:
        Server(address).version()
    except (OllamaUnreachableError, OllamaSilentError):
        return False
    return True
