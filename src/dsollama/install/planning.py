"""Making the plan of an install: everything is asked and decided here, and nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from dsollama.catalog.formats import Variant
from dsollama.catalog.models import CatalogModel, Target, resolve_target
from dsollama.errors import UnknownVariantError, UsageError
from dsollama.events import Listener
from dsollama.gguf.merge import merge_layout
from dsollama.gguf.split_program import find_program
from dsollama.install.choose import Choice, stopped_request
from dsollama.install.consume import require_consumable
from dsollama.install.destination import Destination
from dsollama.install.differences import settings_differences
from dsollama.install.from_store import find_merged
from dsollama.install.headers import facts_of, read_headers
from dsollama.install.naming import PlannedModel, name_models
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.recheck import find_alike, require_header
from dsollama.install.record import Record
from dsollama.install.request import InstallRequest, Merger
from dsollama.install.selection import open_shards, select_files, stamps_of, unchecked_notes
from dsollama.install.to_store import ToStore
from dsollama.manifest.names import parse_name
from dsollama.sources.source import ListedFile
from dsollama.span import Span
from dsollama.store.ledger import LedgerFile
from dsollama.store.store import Store
from dsollama.templates.variants import choose_variants
from dsollama.transfer.shard import PlannedShard


def make_plan(
    request: InstallRequest, listener: Listener, destination: Destination | None = None
) -> InstallPlan:
    """Ask the source, read the shards' headers by ranges, and decide everything.

    Args:
        request: what the user asks for.
        listener: hears of progress.
        destination: where the model goes; by default the store of the settings.

    Raises:
        DsollamaError: any kind of usage, Hub, shard or store error; nothing was written.
    """
    destination = destination or ToStore(request.settings.store)
    store = Store(destination.root)
    _require_sense(request)
    if not request.target:
        request = stopped_request(request, store)
    target = resolve_target(request.target, request.model)
    if request.name:
        parse_name(request.name)  # before anything is asked
    variants = _variants(target.model, request.variants)
    program = None
    if request.merger is Merger.LLAMA_GGUF_SPLIT:
        program = find_program(request.settings.gguf_split)
    choice, local = select_files(target, request, store, listener)
    files = choice.files
    shards = tuple(_planned_shard(choice, each) for each in files)
    remote = not (request.settings.offline or choice.folder)
    reader = open_shards(choice.source if remote else None, choice, local, listener)
    headers = read_headers(reader, files)
    layout = merge_layout(headers, [each.size for each in files]) if choice.split else None
    if layout is None or request.from_store:
        program = None  # there is nothing to merge
    if request.from_store and not choice.folder:
        head, size = (layout.header, layout.size) if layout else (headers[0].raw, files[0].size)
        spans = layout.spans if layout else (Span(0, 0, 0, size),)
        local = find_merged(request.from_store, head, size, shards, spans)
    facts = facts_of(headers)
    models = name_models(request, target.model, choice.repository, choice.quant, variants, facts)
    named = destination.named(models)
    _require_sayable(store, named.models)
    notes = (*choice.notes, *named.notes, *unchecked_notes(request, choice, shards))
    if target.model and choice.others and remote:
        notes += settings_differences(reader, choice.others, target.model)
    plan = InstallPlan(
        source=choice.source,
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        shards=shards,
        merger=request.merger,
        size=layout.size if layout else files[0].size,
        facts=facts,
        store=store.root,
        key=_key(request, choice, Merger(request.merger if program else "native")),
        models=named.models,
        replaces=(),
        state=DiskState(),
        notes=notes,
        layout=layout,
        headers=tuple(headers),
        program=program,
        record=_record(request, target, choice, stamps_of(files, headers, local)),
        local=local,
        remote=remote,
        consume=request.consume,
        folder=choice.folder,
        ollama_host=request.settings.ollama_host,
    )
    if plan.consume:
        require_consumable(plan.shards, local)
    plan = replace(plan, state=destination.state(plan))
    require_header(plan, store)
    if find_alike(plan, store) and not plan.state.resumed:
        note = (
            "the store has weights that begin as these: they are read first, and nothing is moved "
            "if they are the same"
        )
        plan = replace(plan, notes=(*plan.notes, note))
    notes = (*plan.notes, *destination.notes(plan))
    return replace(plan, replaces=destination.replaced(plan), notes=notes)


def _variants(model: CatalogModel | None, wanted: Sequence[str]) -> tuple[Variant | None, ...]:
    if model is not None:
        return choose_variants(model.variants, wanted)
    if wanted:
        raise UnknownVariantError(
            "Only the catalog's models have template variants.",
            "Leave out --variants: this repository's model keeps its own template.",
        )
    return (None,)


def _require_sense(request: InstallRequest) -> None:
    """Refuse options that contradict each other."""
    if request.from_dir and request.from_store:
        raise UsageError("--from-dir and --from-store cannot both be the source.", "Give one.")
    if request.consume and (not request.from_dir or request.merger is not Merger.NATIVE):
        raise UsageError(
            "--consume deletes shards of --from-dir while they are merged natively.",
            "Give --from-dir, and leave out --merger.",
        )
    if request.resume and (request.revision or request.from_url):
        raise UsageError(
            "--resume goes on with the files that the install began with.",
            "Leave out --revision and --from-url, or --resume.",
        )


def _record(
    request: InstallRequest, target: Target, choice: Choice, stamps: tuple[str, ...]
) -> Record:
    return Record(
        endpoint=choice.source.name if choice.source else "",
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        merger=request.merger.value,
        split=choice.split,
        files=tuple(LedgerFile(each.path, each.size, each.sha256) for each in choice.files),
        model=target.model.key if target.model else None,
        name=request.name,
        variants=request.variants,
        stamps=stamps,
    )


def _planned_shard(choice: Choice, file: ListedFile) -> PlannedShard:
    listed = choice.folder is None
    url = ""
    if choice.source and listed:
        url = choice.source.address(choice.repository, choice.commit, file.path)
    return PlannedShard(file.path, file.size, file.sha256, url, listed and file.sha256 is not None)


def _require_sayable(store: Store, models: Sequence[PlannedModel]) -> None:
    """Refuse a store whose path the Modelfiles could not name, before the download."""
    base = str(store.blob_path("sha256:" + "0" * 64))
    try:
        for model in models:
            replace(model.modelfile, base=base).render()
    except ValueError as error:
        raise UsageError(
            f"No Modelfile can name the store {str(store.root)!r}: {error}.",
            "Give --store / OLLAMA_MODELS another path.",
        ) from error


def _key(request: InstallRequest, choice: Choice, merger: Merger) -> str:
    """Name the bytes, not the commit: another commit with the same shards takes over.

    Without a digest it is the source, the commit and the path that name them.
    """
    name = choice.source.name if choice.source else request.settings.endpoint
    place = [name, choice.repository, choice.commit]
    parts = [[file.size, file.sha256 or [*place, file.path]] for file in choice.files]
    return hashlib.sha256(json.dumps([merger.value, parts]).encode()).hexdigest()[:16]
