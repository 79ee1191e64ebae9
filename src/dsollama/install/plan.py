"""The plan of an install: complete, frozen, and printable before anything is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dsollama.catalog.formats import Variant
from dsollama.catalog.models import CatalogModel, Target, resolve_target
from dsollama.errors import HubUnreachableError, ShardError, UnknownVariantError, UsageError
from dsollama.events import Listener, StepStarted
from dsollama.gguf.header import Header, Room, read_header
from dsollama.gguf.loadable import architecture
from dsollama.gguf.merge import MergedLayout, Piece, merge_layout
from dsollama.gguf.split_program import find_program
from dsollama.hub.listing import RemoteFile
from dsollama.hub.ranges import RangeReader
from dsollama.install.choose import Choice, choose, stopped_request
from dsollama.install.consume import require_consumable, room_needed
from dsollama.install.differences import settings_differences
from dsollama.install.from_store import find_merged, find_unlisted
from dsollama.install.naming import PlannedModel, name_models, require_places, spell_for_store
from dsollama.install.recheck import find_alike, require_header
from dsollama.install.record import Record, resumable_bytes
from dsollama.install.replacing import Replaced, find_replaced
from dsollama.install.request import InstallRequest, Merger
from dsollama.manifest.layers import ModelFacts
from dsollama.manifest.names import parse_name
from dsollama.sources.local import LocalFile, ShardReader, find_in_cache, find_in_folder
from dsollama.store.files import disk_used
from dsollama.store.ledger import Entry, Source
from dsollama.store.store import Store
from dsollama.templates.variants import choose_variants
from dsollama.transfer.shard import PlannedShard

FIRST_READ = 2**20
"""Bytes of a shard read at first for its header; shard 1's is read on from there."""

REST_READ = 2**16
SPARE_BYTES = 2**20
"""Room for small layers, manifests and the journal."""


@dataclass(frozen=True)
class InstallPlan:
    """Everything an install will do.

    Attributes:
        endpoint: the Hub; empty if no Hub has listed the files.
        repository: OWNER/REPO.
        commit: full hash that every file is read at; NO_COMMIT if no Hub has listed them.
        quant: label as the repository writes it.
        shards: files to fetch, in order.
        merger: which merger; a single file is copied by either.
        size: bytes of the model's blob.
        facts: architecture, parameters and file type of the weights.
        store: the OLLAMA_MODELS folder.
        key: names the staging folder; the same for the same bytes.
        models: names to write.
        replaces: what has these names and would be lost.
        installed: `sha256:HEX` of the blob where this very model is in the store already.
        resumed: bytes that an earlier run left in place.
        needed: bytes of disk that will be taken.
        free: bytes of disk that are free.
        notes: where the repository's own settings differ from ours, a sentence each.
        layout: the merged file; None for a single file or the other merger.
        headers: the shards' headers.
        record: what a stopped install needs to go on.
        program: path of llama-gguf-split, for that merger.
        local: files of this machine to read instead, by the shard's path in the repository.
        remote: whether the Hub may be asked.
        consume: whether local files are deleted once they are merged and on the disk.
        folder: where the files are, if no Hub has listed them.
        ollama_host: OLLAMA_HOST, where an Ollama may be about to start.
    """

    endpoint: str
    repository: str
    commit: str
    quant: str
    shards: tuple[PlannedShard, ...]
    merger: Merger
    size: int
    facts: ModelFacts
    store: Path
    key: str
    models: tuple[PlannedModel, ...]
    replaces: tuple[Replaced, ...]
    installed: str | None
    resumed: int
    needed: int
    free: int
    notes: tuple[str, ...]
    layout: MergedLayout | None = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    record: Record = field(repr=False)
    program: Path | None = None
    local: Mapping[str, LocalFile] = field(default_factory=dict)
    remote: bool = True
    consume: bool = False
    folder: Path | None = None
    ollama_host: str | None = field(default=None, repr=False)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Files that are compared with no published digest, by their path in the repository."""
        return tuple(shard.path for shard in self.shards if not shard.published)

    @property
    def to_copy(self) -> int:
        """Bytes of files that this machine has already."""
        return 0 if self.installed else sum(s.size for s in self.shards if s.path in self.local)

    @property
    def to_move(self) -> int:
        """Bytes that have to come over the network."""
        total = sum(shard.size for shard in self.shards)
        return 0 if self.installed else max(total - self.to_copy - self.resumed, 0)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; sizes in bytes."""
        return {
            "endpoint": self.endpoint,
            "repository": self.repository,
            "commit": self.commit,
            "quant": self.quant,
            "shards": [vars(shard) for shard in self.shards],
            "merger": self.merger.value if len(self.shards) > 1 else "none",
            "merged_header_sha256": self.layout.header_sha256 if self.layout else None,
            "size": self.size,
            "architecture": self.facts.family,
            "parameters": self.facts.parameters,
            "store": str(self.store),
            "already_installed": self.installed,
            "bytes_resumed": self.resumed,
            "bytes_to_move": self.to_move,
            "bytes_to_copy": self.to_copy,
            "local_files": {path: str(file.path) for path, file in self.local.items()},
            "unchecked": list(self.unchecked),
            "consume": self.consume,
            "disk_needed": self.needed,
            "disk_free": self.free,
            "models": [model.to_json() for model in self.models],
            "replaces": [each.to_json() for each in self.replaces],
            "notes": list(self.notes),
        }


def make_plan(request: InstallRequest, listener: Listener) -> InstallPlan:
    """Ask the Hub, read the shards' headers by ranges, and decide everything.

    Raises:
        DsollamaError: any kind of usage, Hub, shard or store error; nothing was written.
    """
    store = Store(request.settings.store)
    if not request.target:
        request = stopped_request(request, store)
    _require_sense(request)
    target = resolve_target(request.target, request.model)
    if request.name:
        parse_name(request.name)  # before anything is asked
    variants = _variants(target.model, request.variants)
    program = None
    if request.merger is Merger.LLAMA_GGUF_SPLIT:
        program = find_program(request.settings.gguf_split)
    choice, local = _choose(target, request, store, listener)
    files = choice.files
    shards = tuple(_planned_shard(request.settings.endpoint, choice, each) for each in files)
    offline = request.settings.offline or choice.folder
    remote = None if offline else _remote(request, choice, listener)
    headers = _read_headers(ShardReader(remote, local), files)
    layout = merge_layout(headers, [each.size for each in files]) if choice.split else None
    if layout is None or request.from_store:
        program = None  # there is nothing to merge
    if request.from_store and not choice.folder:
        head, size = (layout.header, layout.size) if layout else (headers[0].raw, files[0].size)
        pieces = layout.pieces if layout else (Piece(0, 0, 0, size),)
        local = find_merged(request.from_store, head, size, shards, pieces)
    facts = _facts(headers)
    models = name_models(request, target.model, choice.repository, choice.quant, variants, facts)
    named = spell_for_store(models, store)
    require_places(named.models, store)
    _require_sayable(store, named.models)
    notes = (*choice.notes, *named.notes, *_unchecked_notes(request, choice, shards))
    if target.model and choice.others and remote:
        notes += settings_differences(remote, choice.others, target.model)
    plan = InstallPlan(
        endpoint="" if choice.folder else request.settings.endpoint,
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        shards=shards,
        merger=request.merger,
        size=layout.size if layout else files[0].size,
        facts=facts,
        store=store.root,
        key=_key(
            request.settings.endpoint, choice, Merger(request.merger if program else "native")
        ),
        models=named.models,
        replaces=(),
        installed=None,
        resumed=0,
        needed=0,
        free=store.free_bytes(),
        notes=notes,
        layout=layout,
        headers=tuple(headers),
        program=program,
        record=_record(request, target, choice, _stamps(files, headers, local)),
        local=local,
        remote=remote is not None,
        consume=request.consume,
        folder=choice.folder,
        ollama_host=request.settings.ollama_host,
    )
    if plan.consume:
        require_consumable(plan.shards, local)
    plan = with_disk(plan)
    require_header(plan, store)
    if find_alike(plan, store) and not plan.resumed:
        note = (
            "the store has weights that begin as these: they are read first, and nothing is moved "
            "if they are the same"
        )
        plan = replace(plan, notes=(*plan.notes, note))
    return replace(plan, replaces=replaced_in_store(plan, store))


def replaced_in_store(
    plan: InstallPlan, store: Store, digest: str | None = None
) -> tuple[Replaced, ...]:
    """Return what the install would replace in a store as it is now.

    Args:
        plan: its `replaces` are not looked at.
        store: where.
        digest: of the merged file, once it is known; before that the ledger tells what is the same.
    """
    same = {digest or plan.installed}
    ours: set[str] = set()
    for found, entry in store.ledger.entries():
        if _is_of(plan, entry):
            ours.update(entry.names)
            same |= set() if digest else {found}
    if not digest and not plan.layout:
        same.add(f"sha256:{plan.shards[0].sha256}")

    def is_same(weights: str) -> bool:
        return weights in same or (not digest and _begins_alike(plan, store, weights))

    return find_replaced(store, plan.models, is_same, ours)


def _begins_alike(plan: InstallPlan, store: Store, digest: str) -> bool:
    """Whether a blob has the merged file's size and header, so that it may be taken for the same.

    The ledger may be lost. Should the rest differ, the look under the lock finds it.
    """
    head = plan.layout.header if plan.layout else b""
    if not head or not store.has_blob(digest, plan.size):
        return False
    try:
        with store.blob_path(digest).open("rb") as blob:
            return blob.read(len(head)) == head
    except OSError:
        return False


def with_disk(plan: InstallPlan) -> InstallPlan:
    """Return the plan with what the store holds and has room for at this moment."""
    store = Store(plan.store)
    staging = store.staging(plan.key)
    total = sum(shard.size for shard in plan.shards)
    resumed = min(resumable_bytes(staging, plan.record), total)
    digest = _installed_digest(store, plan)
    needed = 0
    if digest is None:
        whole = total + plan.size if plan.program else plan.size
        needed = max(whole - disk_used(staging), 0)
        if plan.consume:
            room = room_needed(plan.shards, plan.local, store.root, plan.size)
            needed = min(needed, room)
        needed += SPARE_BYTES
    return replace(plan, installed=digest, resumed=resumed, needed=needed, free=store.free_bytes())


def staged_pieces(plan: InstallPlan) -> tuple[Piece, ...]:
    """Return where each shard's bytes go in the staging file or files."""
    if plan.layout and not plan.program:
        return plan.layout.pieces
    return tuple(Piece(index, 0, 0, shard.size) for index, shard in enumerate(plan.shards))


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
    if request.resume and request.revision:
        raise UsageError(
            "--resume goes on with the commit that the install began with.",
            "Leave out --revision, or --resume.",
        )


def _choose(
    target: Target, request: InstallRequest, store: Store, listener: Listener
) -> tuple[Choice, dict[str, LocalFile]]:
    """Return the files, and those that are on this machine; another store is looked into later."""
    if request.from_store and request.settings.offline:
        listener(StepStarted("plan", f"looking into {request.from_store}"))
        found, file = find_unlisted(target, request.from_store)
        return found, {found.files[0].path: file}
    listener(StepStarted("plan", f"asking {request.settings.endpoint}"))
    with _told_of_offline(request):
        choice = choose(target, request, store)
    if request.from_store:
        return choice, {}
    local = {} if request.consume else find_in_cache(choice.repository, choice.files)
    if request.from_dir:
        unlisted = choice.folder is not None or request.consume  # that refuses it in words
        inside, notes = find_in_folder(request.from_dir, choice.files, unchecked=unlisted)
        local |= inside
        choice = replace(choice, notes=(*choice.notes, *notes))
    return choice, local


@contextmanager
def _told_of_offline(request: InstallRequest) -> Iterator[None]:
    """Say how to do without the Hub, where the files are on this machine."""
    try:
        yield
    except HubUnreachableError as error:
        if request.from_store or request.from_dir:
            error.hint += " HF_HUB_OFFLINE=1 takes the files as they are, compared with no digest."
        raise


def _unchecked_notes(
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
            f"{request.settings.endpoint} publishes no digest for {len(unchecked)} of "
            f"{len(shards)} files, so their bytes are compared with nothing: {unchecked[0]}"
            f"{'...' if len(unchecked) > 1 else ''}"
        )
    else:
        return ()
    return (note,)


def _stamps(
    files: Sequence[RemoteFile], headers: Sequence[Header], local: Mapping[str, LocalFile]
) -> tuple[str, ...]:
    """Return what tells local files from others that no published digest tells from them."""
    return tuple(
        f"{local[file.path].stamp} {hashlib.sha256(header.raw).hexdigest()}"
        for file, header in zip(files, headers, strict=True)
        if file.path in local and local[file.path].stamp
    )


def _remote(request: InstallRequest, choice: Choice, listener: Listener) -> RangeReader:
    return RangeReader(request.settings.endpoint, choice.repository, choice.commit, listener)


def _record(
    request: InstallRequest, target: Target, choice: Choice, stamps: tuple[str, ...]
) -> Record:
    return Record(
        endpoint="" if choice.folder else request.settings.endpoint,
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        merger=request.merger.value,
        split=choice.split,
        files=tuple(Source(each.path, each.size, each.sha256) for each in choice.files),
        model=target.model.key if target.model else None,
        name=request.name,
        variants=request.variants,
        stamps=stamps,
    )


def _facts(headers: Sequence[Header]) -> ModelFacts:
    return ModelFacts(
        architecture(headers),
        sum(tensor.elements for header in headers for tensor in header.tensors),
        headers[0].get_int("general.file_type"),
    )


def _read_headers(reader: ShardReader, files: Sequence[RemoteFile]) -> list[Header]:
    headers: list[Header] = []
    left = Room()
    for index, file in enumerate(files):
        size = FIRST_READ if index == 0 else REST_READ
        try:
            headers.append(_read_header(reader, file, size))
            left = left.after(headers[-1])
        except ShardError as error:
            raise type(error)(
                f"Shard {index + 1} of {len(files)} ({file.path}): {error}", error.hint
            ) from error
    return headers


def _read_header(reader: ShardReader, file: RemoteFile, first: int) -> Header:
    return read_header(
        lambda start, end: reader.read(file.path, start, end, file.size), file.size, first
    )


def _planned_shard(endpoint: str, choice: Choice, file: RemoteFile) -> PlannedShard:
    url = f"{endpoint}/{choice.repository}/resolve/{choice.commit}/{file.path}"
    listed = choice.folder is None
    published = listed and file.sha256 is not None
    return PlannedShard(file.path, file.size, file.sha256, url if listed else "", published)


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


def _key(endpoint: str, choice: Choice, merger: Merger) -> str:
    """Name the bytes, not the commit: another commit with the same shards takes over.

    Without a digest it is the Hub, the commit and the path that name them.
    """
    place = [endpoint, choice.repository, choice.commit]
    parts = [[file.size, file.sha256 or [*place, file.path]] for file in choice.files]
    return hashlib.sha256(json.dumps([merger.value, parts]).encode()).hexdigest()[:16]


def _installed_digest(store: Store, plan: InstallPlan) -> str | None:
    """Return the digest under which the ledger knows these very shards, if the blob is there.

    Another store's blob that is here already is named by its own digest.
    """
    if plan.unchecked:
        known = f"sha256:{plan.shards[0].sha256}"
        copied = bool(plan.folder and plan.shards[0].sha256) and store.has_blob(known, plan.size)
        return known if copied and store.ledger.read(known) else None
    for digest, entry in store.ledger.entries():
        if _is_of(plan, entry) and store.has_blob(digest, plan.size):
            return digest
    return None


def _is_of(plan: InstallPlan, entry: Entry) -> bool:
    """Whether a blob was made of the very shards; without digests their commit has to tell."""
    wanted = [shard.sha256 for shard in plan.shards]
    if plan.folder or [source.sha256 for source in entry.sources] != wanted:
        return False
    place = (plan.endpoint, plan.repository, plan.commit, plan.quant)
    return not plan.unchecked or place == (
        entry.endpoint,
        entry.repository,
        entry.commit,
        entry.quant,
    )
