"""What servers have of merged files, noted in the staging folder: `servers/KEY.json`.

A server's own copy of the weights has a digest that only the run which made it has learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from dsollama.install.plan import InstallPlan
from dsollama.manifest.manifest import Digest
from dsollama.store.files import read_small, store_failures, write_atomically
from dsollama.store.store import Store

MAX_RECORD_BYTES = 2**20
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


def _record_path(install: InstallPlan) -> Path:
    return Store(install.store).own / "servers" / f"{install.key}.json"


def _begun_path(install: InstallPlan) -> Path:
    return Store(install.store).own / "servers" / f"{install.key}.begun.json"


def read_registered(install: InstallPlan) -> dict[str, Registered]:
    """Return what servers had of these shards by their address; empty where nothing is known."""
    return _read(_record_path(install), dict[str, Registered])


def read_begun(install: InstallPlan) -> dict[str, list[str]]:
    """Return the names that a killed run may have given a server already, by its address.

    The server's copy of the weights has a digest that only this run would have learned.
    """
    return _read(_begun_path(install), dict[str, list[str]])


def _read(path: Path, kind: type[dict[str, T]]) -> dict[str, T]:
    try:
        return msgspec.json.decode(read_small(path, MAX_RECORD_BYTES, follow=False), type=kind)
    except (OSError, ValueError, RecursionError):
        return {}


def begin(install: InstallPlan, address: str) -> None:
    """Note which names a server is about to get.

    Raises:
        StoreError: it cannot be written.
    """
    names = [str(each.name) for each in install.models]
    _write_record(_begun_path(install), read_begun(install) | {address: names})


def remember(install: InstallPlan, address: str, registered: Registered) -> None:
    """Note what a server has now.

    Raises:
        StoreError: it cannot be written.
    """
    _write_record(_record_path(install), read_registered(install) | {address: registered})
    with store_failures(_begun_path(install)):
        _begun_path(install).unlink(missing_ok=True)


def _write_record(path: Path, record: object) -> None:
    temporary = path.parent.parent / "tmp" / path.name
    write_atomically(path, msgspec.json.encode(record) + b"\n", temporary)
