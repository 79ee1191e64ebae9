"""Which way a model goes into Ollama: into its store, or through its API."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsollama.errors import OllamaSilentError, OllamaUnreachableError, StoreNotWritableError
from dsollama.install.request import Via
from dsollama.ollama.address import is_this_machine, server_address
from dsollama.ollama.server import Server
from dsollama.privileges import acting_as_owner
from dsollama.settings import Settings, expanded
from dsollama.store.ownership import service_notes
from dsollama.store.store import Store


@dataclass(frozen=True)
class Way:
    """The chosen way.

    Attributes:
        via: STORE or API.
        reason: why, in one clause.
        settings: those of the install; by the API its store is the staging folder.
        address: of the Ollama that a model goes to through its API; empty for the store.
        notes: what the user should know beforehand, a sentence each.
    """

    via: Via
    reason: str
    settings: Settings
    address: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what it adds to a plan, as plain data."""
        return {"via": self.via.value, "via_reason": self.reason, "server": self.address or None}


def staging_root(settings: Settings) -> Path:
    """Return where merged files wait for their upload, unless --staging names a folder."""
    return (settings.cache or expanded("~/.cache")) / "dsollama"


def choose_way(wanted: Via, settings: Settings, staging: Path | None = None) -> Way:
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
        return _by_api("--via api", settings, staging, address)
    elsewhere = not settings.store_named and not is_this_machine(address)
    if wanted is Via.AUTO and elsewhere:
        reason = f"OLLAMA_HOST names another machine, {address}"
        return _by_api(reason, settings, staging, address)
    store = Store(settings.store)
    try:
        with acting_as_owner(settings.store):
            store.require_writable()
    except StoreNotWritableError as error:
        answers = _answers(address)
        if wanted is Via.AUTO and answers and os.geteuid() != 0:
            reason = f"{settings.store} cannot be written, and the Ollama at {address} answers"
            return _by_api(reason, settings, staging, address)
        if answers:
            error.hint += f"\nOr hand it to the Ollama at {address}: --via api"
        raise
    reason = "--via store" if wanted is Via.STORE else _why_store(settings)
    return Way(Via.STORE, reason, settings, notes=service_notes(store.facts()))


def _why_store(settings: Settings) -> str:
    given = "it was named" if settings.store_named else "Ollama is on this machine"
    return f"{given}, and the store can be written"


def _by_api(reason: str, settings: Settings, staging: Path, address: str) -> Way:
    Server(address).version()
    return Way(Via.API, reason, replace(settings, store=staging), address)


def _answers(address: str) -> bool:
    try:
        Server(address).version()
    except (OllamaUnreachableError, OllamaSilentError):
        return False
    return True
