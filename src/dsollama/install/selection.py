"""The files of an install, and the source or the files of this machine that give their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from dsollama.catalog.models import Target, resolve_target
from dsollama.errors import HubUnreachableError
from dsollama.events import Listener, StepStarted
from dsollama.gguf.split_program import find_program
from dsollama.install.choose import Choice, choose, stopped_request
from dsollama.install.from_store import find_unlisted
from dsollama.install.request import InstallRequest, Merger
from dsollama.sources.huggingface import HuggingFace
from dsollama.sources.local import LocalFile, find_in_cache, find_in_folder
from dsollama.sources.registry import source_typed
from dsollama.sources.source import Source
from dsollama.store.store import Store


def resolve(request: InstallRequest, store: Store) -> tuple[InstallRequest, Target]:
    """Return what is asked for in full, and the model and quant that it means.

    Raises:
        UsageError: it means nothing, or nothing that has stopped.
        ProgramMissingError: the merger's program is not there.
    """
    if request.merger is Merger.LLAMA_GGUF_SPLIT:
        find_program(request.settings.gguf_split)  # before anything is asked
    if not request.target:
        request = stopped_request(request, store)
    return request, resolve_target(request.target, request.model)


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
