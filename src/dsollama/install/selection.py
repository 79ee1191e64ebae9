"""The files of an install, and the source or the files of this machine that give their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from dsollama.catalog.models import Target
from dsollama.errors import HubUnreachableError
from dsollama.events import Listener, StepStarted
from dsollama.gguf.header import Header
from dsollama.install.choose import Choice, choose
from dsollama.install.from_store import find_unlisted
from dsollama.install.request import InstallRequest
from dsollama.sources.huggingface import HuggingFace
from dsollama.sources.local import LocalFile, ShardReader, find_in_cache, find_in_folder
from dsollama.sources.registry import source_typed
from dsollama.sources.source import ListedFile, Source
from dsollama.store.store import Store
from dsollama.transfer.shard import PlannedShard


def select_files(
    target: Target, request: InstallRequest, store: Store, listener: Listener
) -> tuple[Choice, dict[str, LocalFile]]:
    """Return the files, and those that are on this machine; another store is looked into later.

    Raises:
        DsollamaError: usage, Hub or shard errors.
    """
    if request.from_store and request.settings.offline:
        listener(StepStarted("plan", f"looking into {request.from_store}"))
        found, file = find_unlisted(target, request.from_store)
        return found, {found.files[0].path: file}
    source = _source(request)
    listener(StepStarted("plan", f"asking {request.from_url or request.settings.endpoint}"))
    with _told_of_offline(request):
        choice = choose(target, request, store, source)
    if request.from_store:
        return choice, {}
    local = {} if request.consume else find_in_cache(choice.repository, choice.files)
    if request.from_dir:
        unlisted = choice.folder is not None or request.consume  # that refuses it in words
        inside, notes = find_in_folder(request.from_dir, choice.files, unchecked=unlisted)
        local |= inside
        choice = replace(choice, notes=(*choice.notes, *notes))
    return choice, local


def _source(request: InstallRequest) -> Source:
    if request.from_url:
        return source_typed(request.from_url)
    return HuggingFace(request.settings.endpoint)


@contextmanager
def _told_of_offline(request: InstallRequest) -> Iterator[None]:
    """Say how to do without the Hub, where the files are on this machine."""
    try:
        yield
    except HubUnreachableError as error:
        if request.from_store or request.from_dir:
            error.hint += " HF_HUB_OFFLINE=1 takes the files as they are, compared with no digest."
        raise


def unchecked_notes(
    request: InstallRequest, choice: Choice, shards: Sequence[PlannedShard]
) -> tuple[str, ...]:
    """Say what is compared with no published digest, and what instead."""
    unchecked = [shard.path for shard in shards if not shard.published]
    if request.from_store and choice.folder:
        note = (
            f"HF_HUB_OFFLINE is set: the weights of {choice.folder} are copied as they are, and "
            "only their own digest is compared; whether the Hub has the same is not known"
        )
    elif choice.folder:
        note = (
            f"HF_HUB_OFFLINE is set: the shards of {choice.folder} are taken as they are, and only "
            "their headers are compared with each other; no published digest is"
        )
    elif unchecked:
        note = (
            f"{choice.source.name if choice.source else 'the Hub'} publishes no digest for "
            f"{len(unchecked)} of {len(shards)} files, so their bytes are compared with nothing: "
            f"{unchecked[0]}"
            f"{'...' if len(unchecked) > 1 else ''}"
        )
    else:
        return ()
    return (note,)


def stamps_of(
    files: Sequence[ListedFile], headers: Sequence[Header], local: Mapping[str, LocalFile]
) -> tuple[str, ...]:
    """Return what tells local files from others that no published digest tells from them."""
    return tuple(
        f"{local[file.path].stamp} {hashlib.sha256(header.raw).hexdigest()}"
        for file, header in zip(files, headers, strict=True)
        if file.path in local and local[file.path].stamp
    )


class _Pinned(Protocol):
    """Files of a repository at a commit: a `Choice`, or a plan."""

    @property
    def repository(self) -> str: ...

    @property
    def commit(self) -> str: ...


def open_shards(
    source: Source | None, pinned: _Pinned, local: Mapping[str, LocalFile], listener: Listener
) -> ShardReader:
    """Return what reads the shards: the one place where a reader is made for an install.

    Args:
        source: of the files; None where it must not be asked.
        pinned: which files.
        local: files of this machine to read instead, by path in the repository.
        listener: hears of retries.
    """
    remote = source.reader(pinned.repository, pinned.commit, listener) if source else None
    return ShardReader(remote, local)
