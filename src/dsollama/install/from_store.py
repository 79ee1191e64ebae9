"""A model that another Ollama store holds already, such as that of a second machine.

Nothing of that store is believed, least of all its ledger. Where the Hub can be asked, it says
which shards there are and which digests they have, and the other store's merged file is only
another place to read their bytes from. Offline nothing proves what the weights are: its ledger
tells which blob is meant, the blob's own digest that the copy is one, and what is written down here
is that another store had it, not that a Hub has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsollama.catalog.models import Target
from dsollama.catalog.quants import match_quant
from dsollama.errors import AmbiguousQuantError, NotInstalledError, UnknownQuantError
from dsollama.install.choose import Choice
from dsollama.privileges import acting_as
from dsollama.sources.local import LocalFile, reader_of
from dsollama.sources.source import ListedFile
from dsollama.span import Span
from dsollama.store.alike import blobs_alike
from dsollama.store.ledger import NO_COMMIT
from dsollama.store.store import Store
from dsollama.units import some_of


def find_merged(
    folder: Path, head: bytes, size: int, shards: Sequence[ListedFile], spans: Sequence[Span]
) -> dict[str, LocalFile]:
    """Find a file in another store that may be the merged one, as a place to read shards from.

    Args:
        folder: of the other store.
        head: how the merged file begins.
        size: its bytes.
        shards: what the Hub lists; one that has no published digest is not read here.
        spans: where they are in the merged file.

    Raises:
        NotInstalledError: there is none.
    """
    reads_as = reader_of(folder)
    with acting_as(reads_as):
        found = blobs_alike(folder, size, head)
    if not found:
        raise NotInstalledError(
            f"The store {folder} has no weights that begin as those that the Hub lists.",
            "If it has those of an older commit, name that with --revision. With HF_HUB_OFFLINE=1 "
            "they are copied as they are, and compared with nothing of the Hub's.",
        )
    return {
        shards[span.file].path: LocalFile(found[0], span.target - span.source, reads_as=reads_as)
        for span in spans
        if shards[span.file].sha256 is not None
    }


def find_unlisted(target: Target, folder: Path) -> tuple[Choice, LocalFile]:
    """Find what another store's ledger calls the target's merged file, where no Hub is asked.

    Returns:
        The merged file as the one file of an install, and where it is.

    Raises:
        NotInstalledError: dsollama has not installed it there.
    """
    other = Store(folder)
    names = {each.lower() for each in (target.repository, *target.alternatives)}
    quants: dict[str, tuple[str, int]] = {}
    reads_as = reader_of(folder)
    with acting_as(reads_as):
        for digest, entry in other.ledger.entries():
            if entry.repository.lower() in names and other.has_blob(digest, entry.size):
                quants[entry.quant] = (digest, entry.size)
    try:
        quant = match_quant(target.quant, quants)
    except (UnknownQuantError, AmbiguousQuantError) as error:
        known = some_of(sorted(quants)) or "none of its quants"
        raise NotInstalledError(
            f"dsollama has not installed {target.quant} of {target.repository} into {folder}.",
            f"That store has {known}. Its shards or its merged file can also be given with "
            "--from-dir.",
        ) from error
    digest, size = quants[quant]
    path = other.blob_path(digest)
    file = ListedFile(path.name, size, digest.removeprefix("sha256:"))
    choice = Choice(target.repository, NO_COMMIT, quant, (file,), split=False, folder=folder)
    return choice, LocalFile(path, reads_as=reads_as)
