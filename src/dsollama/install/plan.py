"""The plan of an install: complete, frozen, and printable before anything is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dsollama.catalog.models import CatalogModel, Target, resolve_target
from dsollama.catalog.quants import match_quant, quant_label
from dsollama.errors import (
    AmbiguousQuantError,
    NoGgufError,
    RepositoryNotFoundError,
    ShardError,
    UnknownQuantError,
    UnknownVariantError,
)
from dsollama.events import Listener, StepStarted
from dsollama.gguf.header import Header, NeedMoreBytesError, parse_header
from dsollama.gguf.merge import MergedLayout, Piece, merge_layout
from dsollama.gguf.shards import ShardSet, find_shard_sets
from dsollama.gguf.split_program import find_program
from dsollama.hub.listing import RemoteFile, Repository, list_repository
from dsollama.hub.ranges import RangeReader
from dsollama.install.differences import settings_differences
from dsollama.install.journal import claimed_bytes
from dsollama.install.request import InstallRequest, Merger
from dsollama.modelfile.document import Modelfile
from dsollama.modelfile.layers import Layer, ModelFacts, config_layer, small_layers
from dsollama.modelfile.variants import Variant, catalog_modelfile, choose_variants
from dsollama.store.names import ModelName, parse_name
from dsollama.store.store import Store
from dsollama.units import format_bytes

FIRST_READ = 2**20
"""Bytes of a shard read at first for its header; shard 1's is read on from there."""

REST_READ = 2**16
MAX_CHOICES = 60
"""How many quants are listed for a wrong one."""

SPARE_BYTES = 2**20
"""Room for small layers, manifests and the journal."""


@dataclass(frozen=True)
class PlannedShard:
    """A file to fetch: path in the repository, bytes, digest in hex if published, address."""

    path: str
    size: int
    sha256: str | None
    url: str


@dataclass(frozen=True)
class PlannedModel:
    """A name to write: its template variant (None: the GGUF's own template) and its settings."""

    name: ModelName
    variant: Variant | None
    config: Layer
    modelfile: Modelfile

    @property
    def small(self) -> tuple[Layer, ...]:
        """The layers beside the weights."""
        return small_layers(self.modelfile)


@dataclass(frozen=True)
class InstallPlan:
    """Everything an install will do.

    Attributes:
        endpoint: the Hub.
        repository: OWNER/REPO.
        commit: full hash that every file is read at.
        quant: label as the repository writes it.
        shards: files to fetch, in order.
        merger: which merger; a single file is copied by either.
        size: bytes of the model's blob.
        facts: architecture, parameters and file type of the weights.
        store: the OLLAMA_MODELS folder.
        key: names the staging folder; the same for the same bytes.
        models: names to write.
        installed: `sha256:HEX` of the blob where this very model is in the store already.
        resumed: bytes that an earlier run left in place.
        needed: bytes of disk that will be taken.
        free: bytes of disk that are free.
        notes: where the repository's own settings differ from ours, a sentence each.
        layout: the merged file; None for a single file or the other merger.
        headers: the shards' headers.
        program: path of llama-gguf-split, for that merger.
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
    installed: str | None
    resumed: int
    needed: int
    free: int
    notes: tuple[str, ...]
    layout: MergedLayout | None = field(repr=False)
    headers: tuple[Header, ...] = field(repr=False)
    program: Path | None = None

    @property
    def to_move(self) -> int:
        """Bytes that have to come over the network."""
        return 0 if self.installed else sum(shard.size for shard in self.shards) - self.resumed

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
            "disk_needed": self.needed,
            "disk_free": self.free,
            "models": [_model_json(model) for model in self.models],
            "notes": list(self.notes),
        }


def make_plan(request: InstallRequest, listener: Listener) -> InstallPlan:
    """Ask the Hub, read the shards' headers by ranges, and decide everything.

    Raises:
        DsollamaError: any kind of usage, Hub, shard or store error; nothing was written.
    """
    target = resolve_target(request.target, request.model)
    base = parse_name(request.name) if request.name else None
    variants = _variants(target.model, request.variants)
    program = None
    if request.merger is Merger.LLAMA_GGUF_SPLIT:
        program = find_program(request.settings.gguf_split)
    store = Store(request.settings.store)
    listener(StepStarted("plan", f"asking {request.settings.endpoint}"))
    repository, chosen, quant = _find_quant(target, request)
    files = [repository.files[path] for path in chosen.paths]
    reader = RangeReader(request.settings.endpoint, repository.name, repository.commit, listener)
    headers = _read_headers(reader, files)
    layout = None
    if chosen.split:
        layout = merge_layout(headers, [each.size for each in files])
    name = base or _default_name(target.model, repository.name, quant)
    if request.name and ":" not in request.name.rsplit("/", 1)[-1]:
        name = name.with_tag(quant)
    shards = tuple(_planned_shard(request.settings.endpoint, repository, each) for each in files)
    parameters = sum(tensor.elements for header in headers for tensor in header.tensors)
    facts = ModelFacts(
        headers[0].get_str("general.architecture") or "unknown",
        parameters,
        headers[0].get_int("general.file_type"),
    )
    plan = InstallPlan(
        endpoint=request.settings.endpoint,
        repository=repository.name,
        commit=repository.commit,
        quant=quant,
        shards=shards,
        merger=request.merger,
        size=layout.size if layout else files[0].size,
        facts=facts,
        store=store.root,
        key=_key(repository, files, request.merger if layout else Merger.NATIVE),
        models=tuple(_planned_model(name, target.model, each, facts) for each in variants),
        installed=None,
        resumed=0,
        needed=0,
        free=store.free_bytes(),
        notes=settings_differences(reader, repository, target.model) if target.model else (),
        layout=layout,
        headers=tuple(headers),
        program=program if layout else None,
    )
    return with_disk(plan)


def with_disk(plan: InstallPlan) -> InstallPlan:
    """Return the plan with what the store holds and has room for at this moment."""
    store = Store(plan.store)
    resumed = claimed_bytes(store.staging(plan.key))
    digest = _installed_digest(store, plan)
    needed = 0
    if digest is None:
        files = sum(shard.size for shard in plan.shards) if plan.program else plan.size
        needed = files - resumed + (plan.size if plan.program else 0) + SPARE_BYTES
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


def _find_quant(target: Target, request: InstallRequest) -> tuple[Repository, ShardSet, str]:
    """Look for the quant in the target's repositories, the preferred one first."""
    failure: Exception | None = None
    for name in (target.repository, *target.alternatives):
        try:
            repository = list_repository(
                name,
                revision=request.revision,
                endpoint=request.settings.endpoint,
                offline=request.settings.offline,
            )
            chosen, quant = _choose(repository, target.quant)
        except (RepositoryNotFoundError, UnknownQuantError, NoGgufError) as error:
            failure = failure or error
            continue
        chosen.require_complete()
        return repository, chosen, quant
    assert failure is not None  # noqa: S101 - there is at least one repository
    raise failure


def _choose(repository: Repository, typed: str) -> tuple[ShardSet, str]:
    sets = find_shard_sets(repository.files)
    if not sets:
        raise NoGgufError(
            f"The repository {repository.name} holds no GGUF file.",
            "GGUF repositories usually end in -GGUF.",
        )
    labels = {each.prefix: quant_label(each.stem) for each in sets}
    try:
        label = match_quant(typed, labels.values())
    except (UnknownQuantError, AmbiguousQuantError) as error:
        error.hint = _choices(repository, sets, labels)
        raise
    found = [each for each in sets if labels[each.prefix] == label]
    if len(found) > 1:
        raise AmbiguousQuantError(
            f"The repository holds {label} {len(found)} times: "
            f"{', '.join(each.prefix for each in found)}.",
            "Take another quant, or a --revision that has it once.",
        )
    return found[0], label


def _choices(repository: Repository, sets: Sequence[ShardSet], labels: dict[str, str]) -> str:
    sized = sorted(
        (sum(repository.files[path].size for path in each.paths), labels[each.prefix])
        for each in sets
    )
    lines = [f"  {label:<14} {format_bytes(size)}" for size, label in sized[:MAX_CHOICES]]
    return f"{repository.name} holds:\n" + "\n".join(lines)


def _read_headers(reader: RangeReader, files: Sequence[RemoteFile]) -> list[Header]:
    headers = []
    for index, file in enumerate(files):
        size = FIRST_READ if index == 0 else REST_READ
        try:
            headers.append(_read_header(reader, file, size))
        except ShardError as error:
            raise type(error)(
                f"Shard {index + 1} of {len(files)} ({file.path}): {error}", error.hint
            ) from error
    return headers


def _read_header(reader: RangeReader, file: RemoteFile, size: int) -> Header:
    buffer = b""
    while True:
        size = min(size, file.size)
        buffer += reader.read(file.path, len(buffer), size, file.size) if size else b""
        try:
            return parse_header(buffer, file.size)
        except NeedMoreBytesError as need:
            size = max(need.size, 2 * size)


def _default_name(model: CatalogModel | None, repository: str, quant: str) -> ModelName:
    if model is not None:
        return parse_name(f"{model.name}:{quant}")
    return parse_name(f"hf.co/{repository}:{quant}")


def _planned_shard(endpoint: str, repository: Repository, file: RemoteFile) -> PlannedShard:
    url = f"{endpoint}/{repository.name}/resolve/{repository.commit}/{file.path}"
    return PlannedShard(file.path, file.size, file.sha256, url)


def _planned_model(
    base: ModelName, model: CatalogModel | None, variant: Variant | None, facts: ModelFacts
) -> PlannedModel:
    config = config_layer(facts)
    if model is None or variant is None:
        return PlannedModel(base, None, config, Modelfile(""))
    name = base.with_tag(base.tag + variant.tag_suffix)
    return PlannedModel(name, variant, config, catalog_modelfile(model, variant, ""))


def _key(repository: Repository, files: Sequence[RemoteFile], merger: Merger) -> str:
    """Name the bytes, not the commit: another commit with the same shards takes over."""
    parts = [
        [file.size, file.sha256 or [repository.name, repository.commit, file.path]]
        for file in files
    ]
    return hashlib.sha256(json.dumps([merger.value, parts]).encode()).hexdigest()[:16]


def _installed_digest(store: Store, plan: InstallPlan) -> str | None:
    """Return the digest under which the ledger knows these very shards, if the blob is there."""
    wanted = [shard.sha256 for shard in plan.shards]
    if None in wanted:
        return None
    for digest, entry in store.ledger():
        if entry.get("shards") == wanted and store.has_blob(digest, plan.size):
            return digest
    return None


def _model_json(model: PlannedModel) -> dict[str, Any]:
    return {
        "name": str(model.name),
        "variant": model.variant.name if model.variant else None,
        "layers": [layer.entry() for layer in (model.config, *model.small)],
    }
