"""Doing what the plan says, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from msgspec import structs

from dsollama import __version__
from dsollama.errors import (
    CorruptShardError,
    InterruptedByUserError,
    MalformedGgufError,
    NotEnoughDiskError,
    StoreBusyError,
    StoreError,
)
from dsollama.events import Listener, ShardVerified, StepStarted
from dsollama.gguf import split_program
from dsollama.gguf.shards import shard_file_name
from dsollama.hub.ranges import RangeReader
from dsollama.install.consume import MAX_CONNECTIONS, reach
from dsollama.install.journal import clear_claims, has_claims
from dsollama.install.naming import spell_for_store
from dsollama.install.plan import (
    InstallPlan,
    reader_of,
    replaced_in_store,
    staged_pieces,
    with_disk,
)
from dsollama.install.record import mark_consumed, write_record
from dsollama.install.replacing import require_agreed
from dsollama.install.segments import Job, make_jobs
from dsollama.install.sources import ShardReader
from dsollama.install.staged import StagedFile
from dsollama.install.transfer import BLOCK_BYTES, Transfer
from dsollama.modelfile.layers import MODEL, layer_entry, manifest_bytes
from dsollama.privileges import as_caller
from dsollama.store.files import make_folder, open_new, remove_if_empty, store_failures
from dsollama.store.ledger import Entry, Source, Span
from dsollama.store.store import Store
from dsollama.units import format_bytes

MERGED = "merged.gguf"
LOCK_TRIES, LOCK_SECONDS = 20, 1.0
"""A `dsollama gc` that looks around holds the lock of an install for a moment."""


@dataclass(frozen=True)
class Installed:
    """What an install did.

    Attributes:
        names: the names that can now be run.
        digest: `sha256:HEX` of the model's blob.
        size: bytes of the blob.
        moved: bytes that came over the network now.
        copied: bytes read from files of this machine.
        resumed: bytes taken over from an earlier run.
        seconds: wall time.
        store: where.
    """

    names: tuple[str, ...]
    digest: str
    size: int
    moved: int
    copied: int
    resumed: int
    seconds: float
    store: Path

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**vars(self), "names": list(self.names), "store": str(self.store)}


def execute(plan: InstallPlan, listener: Listener, connections: int) -> Installed:
    """Install as planned; a failure leaves the store as it was, and verified bytes in staging.

    Args:
        plan: from `make_plan`.
        listener: hears of progress.
        connections: parallel connections.

    Raises:
        DsollamaError: Hub, shard, store or engine errors, or InterruptedByUserError.
    """
    began = time.monotonic()
    plan = with_disk(plan)
    store = Store(plan.store)
    store.require_writable()
    digest, moved, copied = "", 0, 0
    if not plan.installed:
        _require_room(plan)
        with _staging(store, plan.key) as staging:
            plan = with_disk(plan)  # another dsollama may have been quicker
            if not plan.installed:
                write_record(staging, plan.record)
                blob = _make_blob(plan, staging, listener, connections)
                digest, moved, copied = blob.digest, blob.moved, blob.copied
                plan = _adopt(plan, store, staging, blob, listener)
    if plan.installed:
        digest = plan.installed
        plan = _take_over(plan, store, listener)
    return Installed(
        names=_names(plan),
        digest=digest,
        size=plan.size,
        moved=moved,
        copied=copied,
        resumed=plan.resumed,
        seconds=time.monotonic() - began,
        store=plan.store,
    )


def _adopt(
    plan: InstallPlan, store: Store, staging: Path, blob: _Blob, listener: Listener
) -> InstallPlan:
    """Make the merged file a blob and register it; return the plan with its final names."""
    listener(StepStarted("register", ", ".join(_names(plan))))
    merged = staging / MERGED
    with store.changing():
        plan = _with_names(plan, store, blob.digest)
        # From here on the blob is nobody's until its manifests are there.
        with _taken_back_on_failure(plan, store, blob.digest, merged):
            # The ledger first: killed behind it, a rerun finds the blob and only registers it.
            store.ledger.write(blob.digest, _ledger_entry(plan, blob.prefixes))
            store.adopt_blob(blob.digest, merged)
            _register(plan, store, blob.digest)
        _unname_elsewhere(plan, store, blob.digest)
    clear_claims(staging)
    return plan


def _take_over(plan: InstallPlan, store: Store, listener: Listener) -> InstallPlan:
    """Register a blob that the store has already; return the plan with its final names."""
    digest = plan.installed
    assert digest is not None  # noqa: S101 - the caller has looked
    listener(StepStarted("register", ", ".join(_names(plan))))
    _remove_leftovers(store, plan.key)
    with store.changing():
        if not store.has_blob(digest, plan.size):  # `dsollama remove` may be quicker
            raise StoreBusyError(
                "The model's weights have just been removed by another dsollama.",
                "Run the same command again.",
            )
        plan = _with_names(plan, store, digest)
        _register(plan, store, digest)
        _name_in_ledger(plan, store, digest)
        _unname_elsewhere(plan, store, digest)
    return plan


def _with_names(plan: InstallPlan, store: Store, digest: str) -> InstallPlan:
    """Look at the store's names once more, under its lock: hours may lie between plan and end.

    Raises:
        NameTakenError: a name has become another model's.
    """
    plan = replace(plan, models=spell_for_store(plan.models, store).models)
    require_agreed(replaced_in_store(plan, store, digest), plan.replaces)
    return plan


def _names(plan: InstallPlan) -> tuple[str, ...]:
    return tuple(str(model.name) for model in plan.models)


def _require_room(plan: InstallPlan) -> None:
    if plan.needed > plan.free:
        raise NotEnoughDiskError(
            f"The install needs {format_bytes(plan.needed)} and {plan.store} has "
            f"{format_bytes(plan.free)} free.",
            "Free some space, take a smaller quant, or put the store elsewhere with --store.",
        )


@contextmanager
def _staging(store: Store, key: str) -> Iterator[Path]:
    """Lock the install's folder; afterwards keep it only if it holds claimed bytes."""
    folder = store.staging(key)
    existed = {each for each in (store.root, *_folders(store.root)) if each.exists()}
    with store_failures(folder):
        lock = _locked(folder)
    try:
        yield folder
    finally:
        if not has_claims(folder):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        remove_if_empty(folder)
        remove_if_empty(folder.parent)
        # Others come by way of the store's lock, and may be about to write into these.
        if not (store.own / "lock").exists():
            for each in (store.own / "tmp", *_folders(store.root), store.root):
                if each not in existed:
                    remove_if_empty(each)


def _remove_leftovers(store: Store, key: str) -> None:
    """Remove the staging folder of an install that was killed just before its end."""
    if store.staging(key).exists():
        with suppress(StoreBusyError), _staging(store, key) as staging:
            clear_claims(staging)


def _locked(folder: Path) -> FileLock:
    """Make an install's folder and lock it; an ending install or a gc may just take it away."""
    lock = FileLock(folder / "lock")
    for _ in range(LOCK_TRIES):
        with suppress(FileNotFoundError):
            make_folder(folder)
            os.close(open_new(folder / "lock", os.O_RDWR))
            try:
                lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:  # an OSError, but not one of the disk's
                break
            return lock
    raise StoreBusyError(
        "Another dsollama is installing this very model into this store.",
        "Wait for it to finish; then this command has nothing left to download.",
    )


def _folders(root: Path) -> tuple[Path, ...]:
    return (root / ".dsollama", root / "blobs", root / "manifests")


@dataclass(frozen=True)
class _Blob:
    """A finished, durable `merged.gguf` in the staging folder.

    `moved` bytes came from the Hub and `copied` from files of this machine.
    """

    digest: str
    prefixes: tuple[str, ...]
    moved: int
    copied: int


def _make_blob(plan: InstallPlan, staging: Path, listener: Listener, connections: int) -> _Blob:
    """Make the merged file, by either merger."""
    remote = RangeReader(plan.endpoint, plan.repository, plan.commit, listener)
    reads_as = reader_of(plan.local, plan.origin)
    reader = ShardReader(remote if plan.remote else None, plan.local, reads_as)
    if not plan.program:
        return _fetch_merged(plan, reader, staging, listener, connections)
    merged = staging / MERGED
    moved = _fetch_shards(plan, reader, staging, listener, connections)
    listener(StepStarted("merge", str(plan.program)))
    first = staging / shard_file_name("model", 1, len(plan.shards))
    with _removed_on_failure(merged):
        split_program.merge(plan.program, first, merged)
        listener(StepStarted("digest", format_bytes(merged.stat().st_size)))
        digest = _digest_file(merged)
    return _Blob(digest, (), moved - reader.copied, reader.copied)


def _fetch_merged(
    plan: InstallPlan, reader: ShardReader, staging: Path, listener: Listener, connections: int
) -> _Blob:
    """The one pass: every shard straight to its place in the merged file."""
    merged = staging / MERGED
    head = plan.layout.header if plan.layout else b""
    _prepare(merged, plan, head, staging)
    heads = {index: header.raw if plan.layout else b"" for index, header in enumerate(plan.headers)}
    jobs = make_jobs(
        plan.shards,
        staged_pieces(plan),
        dict.fromkeys(heads, merged),
        heads,
        plan.size,
    )
    _verify_headers_only(plan, listener)
    listener(StepStarted("download", _what(plan)))
    whole = hashlib.sha256(head) if plan.layout else None
    transfer = Transfer(
        jobs,
        len(plan.shards),
        reader,
        staging,
        min(connections, MAX_CONNECTIONS) if plan.consume else connections,
        listener,
        lambda job: _consume(reader, transfer, staging, job) if plan.consume else None,
        reach(plan.size) if plan.consume else None,
    )
    with _interruptible(transfer):
        digests = transfer.run(whole)
    if plan.layout:
        _require_zero_gaps(merged, plan.layout.gaps)
    # A single file is the blob as it is: one digest serves both.
    digest = f"sha256:{digests.whole or digests.shards[0]}"
    moved = transfer.moved - reader.copied
    return _Blob(digest, digests.prefixes, moved, reader.copied)


def _prepare(file: Path, plan: InstallPlan, head: bytes, staging: Path) -> None:
    """Give the staging file its room and its first bytes; without a file no claim holds."""
    if not file.exists():
        clear_claims(staging)
    with closing(StagedFile(file)) as staged:
        staged.resize(plan.size, reserve=not plan.consume)
        staged.write(memoryview(head), 0, direct=False)


def _consume(reader: ShardReader, transfer: Transfer, staging: Path, job: Job) -> None:
    """Delete a local shard whose bytes are verified, once they are on the disk for good."""
    path = reader.local(job.shard.path)
    if path is not None:
        transfer.checkpoint()
        mark_consumed(staging)
        with store_failures(path), as_caller():
            path.unlink()


def _fetch_shards(
    plan: InstallPlan, reader: ShardReader, staging: Path, listener: Listener, connections: int
) -> int:
    """The named road: every shard into a file of its own, with the name the program expects."""
    count = len(plan.shards)
    files = {index: staging / shard_file_name("model", index + 1, count) for index in range(count)}
    jobs = make_jobs(plan.shards, staged_pieces(plan), files, dict.fromkeys(files, b""), 0)
    listener(StepStarted("download", _what(plan)))
    with _interruptible(
        Transfer(jobs, len(plan.shards), reader, staging, connections, listener)
    ) as transfer:
        transfer.run(None)
    return transfer.moved


def _what(plan: InstallPlan) -> str:
    text = f"{len(plan.shards)} shards, {format_bytes(plan.size)}"
    return f"{text}, {len(plan.local)} of them from this machine" if plan.local else text


def _verify_headers_only(plan: InstallPlan, listener: Listener) -> None:
    """Check shards without tensors: their header is all they have."""
    pieces = {piece.shard for piece in staged_pieces(plan)}
    for index, (shard, header) in enumerate(zip(plan.shards, plan.headers, strict=True)):
        if index not in pieces:
            found = hashlib.sha256(header.raw).hexdigest()
            if shard.sha256 not in {None, found}:
                raise CorruptShardError(
                    f"Shard {index + 1} ({shard.path}) is not the one that the Hub published.",
                    "Run the same command again.",
                )
            listener(ShardVerified(index + 1, len(plan.shards), found))


@contextmanager
def _interruptible(transfer: Transfer) -> Iterator[Transfer]:
    """Turn Ctrl-C into an error that says what is kept."""
    try:
        with transfer:
            yield transfer
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            f"Stopped; {format_bytes(transfer.kept())} are kept.",
            "Run the same command again to go on from there.",
        ) from error


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    path.unlink(missing_ok=True)  # what an interrupted run left
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _require_zero_gaps(merged: Path, gaps: tuple[tuple[int, int], ...]) -> None:
    """llama-gguf-split writes zeros between tensors, whatever a shard has there."""
    with store_failures(merged), merged.open("rb") as file:
        for offset, size in gaps:
            if os.pread(file.fileno(), size, offset).strip(b"\0"):
                raise MalformedGgufError(
                    f"The padding at byte {offset} of the merged file is not zero.",
                    "`--merger llama-gguf-split` rewrites it.",
                )


def _digest_file(path: Path) -> str:
    with store_failures(path), path.open("rb") as file:
        os.fsync(file.fileno())
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def _taken_back_on_failure(
    plan: InstallPlan, store: Store, digest: str, merged: Path
) -> Iterator[None]:
    """Leave the store as it was, with the blob back in staging, if its names cannot be written."""
    blob = store.blob_path(digest)
    had_blob = blob.exists()
    made = [store.blob_path(each.digest) for model in plan.models for each in model.small]
    made += [store.blob_path(model.config.digest) for model in plan.models]
    made += [store.modelfile_path(model.name) for model in plan.models]
    made += [store.ledger.path(digest)]
    made = [path for path in made if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if blob.exists() and not had_blob:
                blob.replace(merged)
            for path in made:
                path.unlink(missing_ok=True)
        raise


def _register(plan: InstallPlan, store: Store, digest: str) -> None:
    """Small layers and Modelfiles first, the manifests last."""
    store.clear_temporary()
    manifests = {}
    for model in plan.models:
        for layer in (model.config, *model.small):
            store.put_blob(layer.digest, layer.data)
        text = replace(model.modelfile, base=str(store.blob_path(digest))).render()
        store.write_modelfile(model.name, text)
        weights = layer_entry(MODEL, digest, plan.size)
        manifests[model.name] = manifest_bytes(model.config, weights, model.small)
    store.put_manifests(manifests)


def _name_in_ledger(plan: InstallPlan, store: Store, digest: str) -> None:
    entry = store.ledger.read(digest)
    if entry is not None:
        names = {*entry.names, *_names(plan)}
        store.ledger.write(digest, structs.replace(entry, names=tuple(sorted(names))))


def _unname_elsewhere(plan: InstallPlan, store: Store, digest: str) -> None:
    """Forget that a name which was replaced had other weights: `verify` would give them back."""
    names = set(_names(plan))
    for other, entry in store.ledger.entries():
        if other != digest and not names.isdisjoint(entry.names):
            left = tuple(each for each in entry.names if each not in names)
            with suppress(StoreError):  # the models are installed, whatever the ledger says
                store.ledger.write(other, structs.replace(entry, names=left))


def _ledger_entry(plan: InstallPlan, prefixes: tuple[str, ...]) -> Entry:
    names = tuple(sorted(_names(plan)))
    installed = datetime.now(UTC).isoformat(timespec="seconds")
    if plan.origin is not None:
        return structs.replace(
            plan.origin,
            block=BLOCK_BYTES,
            prefixes=prefixes,
            names=names,
            installed=installed,
            dsollama=__version__,
        )
    spans = plan.layout.pieces if plan.layout else staged_pieces(plan)
    return Entry(
        size=plan.size,
        endpoint=plan.endpoint,
        repository=plan.repository,
        commit=plan.commit,
        quant=plan.quant,
        sources=tuple(Source(each.path, each.size, each.sha256) for each in plan.shards),
        spans=tuple(Span(each.shard, each.source, each.target, each.size) for each in spans),
        block=BLOCK_BYTES,
        prefixes=prefixes,
        names=names,
        installed=installed,
        dsollama=__version__,
    )
