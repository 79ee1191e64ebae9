"""Which files an install is made of: by the Hub's listing, a stopped install, or a folder alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from dsollama.catalog.models import Target
from dsollama.errors import (
    NoGgufError,
    RepositoryNotFoundError,
    UnknownQuantError,
    UsageError,
)
from dsollama.install.quants import choose_quant, files_of, means
from dsollama.install.record import Record, stopped_installs
from dsollama.install.request import InstallRequest, Merger
from dsollama.sources.local import gguf_files, reader_of
from dsollama.sources.registry import source_named
from dsollama.sources.source import ListedFile, Listing, Source, offline_error
from dsollama.store.ledger import NO_COMMIT
from dsollama.store.store import Store
from dsollama.transfer.journal import claimed_bytes
from dsollama.units import format_bytes

MAX_CHOICES = 60
"""How many quants are listed for a wrong one."""

MAX_SHOWN = 5
"""Of the places of a quant that a repository holds more than once."""

MAX_SHARDS = 4096
"""Of one set; DeepSeek's 671B models would be some 1,100 with a shard for every tensor."""

MAX_RECORDS = 20
"""Stopped installs that are looked at to tell which one is meant."""


@dataclass(frozen=True)
class Choice:
    """The files of an install.

    Attributes:
        repository: OWNER/REPO.
        commit: full hash that they are read at.
        quant: label as the repository writes it.
        files: the shards in order, or a single file.
        split: whether they are shards.
        others: the repository's other files by path, if it was listed.
        notes: what the user should know, a sentence each.
        folder: where the files are, if no source has listed them.
        source: what has listed them; None with a folder.
    """

    repository: str
    commit: str
    quant: str
    files: tuple[ListedFile, ...]
    split: bool
    others: Listing | None = None
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    source: Source | None = None


def choose(target: Target, request: InstallRequest, store: Store, source: Source) -> Choice:
    """Decide on the files.

    An install that was stopped goes on with its own files, even where the Hub has newer ones by
    now, unless a revision is asked for.

    Raises:
        DsollamaError: usage, Hub or shard errors.
    """
    stopped = None if request.revision else _stopped(target, request, store, source)
    if request.resume:
        if stopped is None:
            raise UsageError(
                f"No install of {target.quant} has stopped in {store.root}.",
                "Leave out --resume to begin one.",
            )
        return _of_record(stopped[1], request, source)
    if request.settings.offline and request.from_dir:
        return _of_folder(target, request.from_dir)
    choice = _of_listing(target, request, source)
    if stopped is None or not source.keeps_commits or _same_files(stopped[1], choice):
        return choice
    key, record = stopped
    in_place = format_bytes(claimed_bytes(store.staging(key)))
    note = (
        f"{record.repository} has changed since this install began: it goes on with commit "
        f"{record.commit[:12]}, of which {in_place} are in place; --revision {choice.commit[:12]} "
        "takes the new one"
    )
    return replace(_of_record(record, request, source), others=choice.others, notes=(note,))


def stopped_request(request: InstallRequest, store: Store) -> InstallRequest:
    """Return the request of the only install that has stopped in the store.

    Raises:
        UsageError: there is none, or more than one.
    """
    stopped = (
        record for key, record in stopped_installs(store) if claimed_bytes(store.staging(key))
    )
    records = [*islice(stopped, MAX_RECORDS)]
    if not records:
        raise UsageError(
            f"No install has stopped in {store.root}.", "dsollama install QUANT begins one."
        )
    if len(records) > 1:
        commands = [
            f"  dsollama install --resume {each.target}"
            + (f" --model {each.model}" if each.model else "")
            for each in records[:MAX_SHOWN]
        ]
        raise UsageError(
            f"{'Some ' * (len(records) == MAX_RECORDS)}{len(records)} installs have stopped in "
            f"{store.root}.",
            "Say which one is meant:\n" + "\n".join(commands),
        )
    record = records[0]
    return replace(
        request,
        target=record.target,
        model=record.model,
        name=request.name or record.name,
        variants=request.variants or record.variants,
        merger=Merger(record.merger),
    )


def _stopped(
    target: Target, request: InstallRequest, store: Store, source: Source
) -> tuple[str, Record] | None:
    """Return the stopped install of the same quant that is furthest."""
    names = {each.lower() for each in (target.repository, *target.alternatives)}
    found: tuple[int, str, Record] | None = None
    for key, record in stopped_installs(store):
        if (
            record.repository.lower() in names
            and record.merger == request.merger
            and means(target.quant, record.quant)
            and (request.resume or _began_at(source, record, request))
        ):
            done = claimed_bytes(store.staging(key))
            if not (done and (request.resume or record.listed)):
                continue
            if found is None or (done, key) > found[:2]:
                found = (done, key, record)
    return None if found is None else found[1:]


def _began_at(source: Source, record: Record, request: InstallRequest) -> bool:
    """Whether a stopped install takes its files from `source`; all Hubs have the same ones."""
    began = source_named(record.endpoint, trusted=request.settings.endpoint)
    return began.keeps_commits if source.keeps_commits else began == source


def _of_record(record: Record, request: InstallRequest, source: Source) -> Choice:
    folder = None if record.listed else request.from_dir
    if not record.listed and folder is None:
        raise UsageError(
            "That install copied files of this machine, which no Hub has listed.",
            "Give --from-dir again.",
        )
    began = source_named(record.endpoint, trusted=request.settings.endpoint)
    return Choice(
        record.repository,
        record.commit,
        record.quant,
        tuple(ListedFile(each.path, each.size, each.sha256) for each in record.files),
        record.split,
        folder=folder,
        source=None if folder else source if began.keeps_commits else began,
    )


def _same_files(record: Record, choice: Choice) -> bool:
    """Whether the bytes are the same; where nobody published digests, the commit has to be."""
    digests = [(each.size, each.sha256) for each in record.files]
    if any(digest is None for _, digest in digests) and record.commit != choice.commit:
        return False
    return digests == [(each.size, each.sha256) for each in choice.files]


def _of_listing(target: Target, request: InstallRequest, source: Source) -> Choice:
    """Look for the quant in the target's repositories, the preferred one first."""
    if request.settings.offline:
        raise offline_error("the Hub is needed")
    failure: Exception | None = None
    for name in (target.repository, *target.alternatives):
        try:
            choice = _of_repository(source.listing(name, request.revision), target.quant)
            return replace(choice, source=source)
        except (RepositoryNotFoundError, UnknownQuantError, NoGgufError) as error:
            failure = failure or error
    assert failure is not None  # noqa: S101 - there is at least one repository
    raise failure


def _of_folder(target: Target, folder: Path) -> Choice:
    """Go by the names in a folder: there is no listing, so the split metadata has to do."""
    files = {
        path.name: ListedFile(path.name, found.st_size, None)
        for path, found in gguf_files(folder, reader_of(folder))
    }
    choice = _of_repository(Listing(target.repository, NO_COMMIT, files), target.quant)
    return replace(choice, others=None, folder=folder)


def _of_repository(repository: Listing, typed: str) -> Choice:
    quant = choose_quant(repository, typed)
    files = files_of(repository, quant)
    split = quant.shards.split
    return Choice(repository.name, repository.commit, quant.label, files, split, repository)
