"""A model that another Ollama store holds already, such as that of a second machine."""

from __future__ import annotations

from pathlib import Path

from dsollama.catalog.models import Target
from dsollama.catalog.quants import match_quant
from dsollama.errors import AmbiguousQuantError, NotInstalledError, UnknownQuantError
from dsollama.hub.listing import RemoteFile
from dsollama.install.choose import Choice
from dsollama.privileges import CALLER, acting_as, owner_of
from dsollama.store.ledger import Entry
from dsollama.store.store import Store


def find_in_store(target: Target, folder: Path) -> tuple[Choice, Path, Entry]:
    """Find the target's merged file in another store, by that store's ledger.

    Returns:
        The merged file as the one file of an install; its path; what the other ledger knows of it.

    Raises:
        NotInstalledError: dsollama has not installed it there.
    """
    other = Store(folder)
    names = {each.lower() for each in (target.repository, *target.alternatives)}
    quants: dict[str, tuple[str, Entry]] = {}
    with acting_as(owner_of(folder) or CALLER):
        for digest, entry in other.ledger.entries():
            if entry.repository.lower() in names and other.has_blob(digest, entry.size):
                quants[entry.quant] = (digest, entry)
    try:
        digest, entry = quants[match_quant(target.quant, quants)]
    except (UnknownQuantError, AmbiguousQuantError) as error:
        known = ", ".join(sorted(quants)) or "none of its quants"
        raise NotInstalledError(
            f"dsollama has not installed {target.quant} of {target.repository} into {folder}.",
            f"That store has {known}. Its shards or its merged file can also be given with "
            "--from-dir.",
        ) from error
    path = other.blob_path(digest)
    file = RemoteFile(path.name, entry.size, digest.removeprefix("sha256:"))
    note = f"copied from {folder} and checked by its digest; the Hub is not asked"
    choice = Choice(
        entry.repository, entry.commit, entry.quant, (file,), split=False, notes=(note,)
    )
    return choice, path, entry
