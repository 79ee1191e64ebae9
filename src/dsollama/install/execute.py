"""Doing what the plan says, and nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dsollama import __version__
from dsollama.errors import (
    CorruptShardError,
    InterruptedByUserError,
    MalformedGgufError,
    NotEnoughDiskError,
    StoreBusyError,
)
from dsollama.events import Listener, ShardVerified, StepStarted
from dsollama.gguf import split_program
from dsollama.gguf.shards import shard_file_name
from dsollama.hub.ranges import RangeReader
from dsollama.install.plan import InstallPlan, staged_pieces, with_disk
from dsollama.install.transfer import Transfer, make_jobs
from dsollama.modelfile.layers import MODEL, layer_entry, manifest_bytes
from dsollama.store.files import make_folder, store_failures
from dsollama.store.store import Store
from dsollama.units import format_bytes

MERGED = "merged.gguf"
_HASH_BLOCK = 4 * 2**20


@dataclass(frozen=True)
class Installed:
    """What an install did.

    Attributes:
        names: the names that can now be run.
        digest: `sha256:HEX` of the model's blob.
        size: bytes of the blob.
        moved: bytes fetched now.
        resumed: bytes taken over from an earlier run.
        seconds: wall time.
        store: where.
    """

    names: tuple[str, ...]
    digest: str
    size: int
    moved: int
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
    digest, moved = plan.installed, 0
    if digest is None:
        _require_room(plan)
        with _staging(store, plan.key) as staging:
            digest, moved = _make_blob(plan, store, staging, listener, connections)
    listener(StepStarted("register", ", ".join(str(model.name) for model in plan.models)))
    _register(plan, store, digest)
    return Installed(
        names=tuple(str(model.name) for model in plan.models),
        digest=digest,
        size=plan.size,
        moved=moved,
        resumed=plan.resumed,
        seconds=time.monotonic() - began,
        store=plan.store,
    )


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
    make_folder(folder)
    lock = FileLock(folder / "lock")
    with store_failures(folder):
        _acquire(lock)
    try:
        yield folder
    finally:
        if not (folder / "journal.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        for each in (folder, folder.parent, store.own / "tmp", *_folders(store.root), store.root):
            if each not in existed:
                _remove_if_empty(each)


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout as error:  # an OSError, but not one of the disk's
        raise StoreBusyError(
            "Another dsollama is installing this very model into this store.",
            "Wait for it to finish; then this command has nothing left to do.",
        ) from error


def _folders(root: Path) -> tuple[Path, ...]:
    return (root / ".dsollama", root / "blobs", root / "manifests")


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _make_blob(
    plan: InstallPlan, store: Store, staging: Path, listener: Listener, connections: int
) -> tuple[str, int]:
    """Return the blob's digest and the bytes that were fetched."""
    reader = RangeReader(plan.endpoint, plan.repository, plan.commit, listener)
    merged = staging / MERGED
    if plan.program:
        moved = _fetch_shards(plan, reader, staging, listener, connections)
        listener(StepStarted("merge", str(plan.program)))
        first = staging / shard_file_name("model", 1, len(plan.shards))
        with _removed_on_failure(merged):
            split_program.merge(plan.program, first, merged)
            listener(StepStarted("digest", format_bytes(merged.stat().st_size)))
            digest = _digest_file(merged)
    else:
        digest, moved = _fetch_merged(plan, reader, staging, listener, connections)
    store.adopt_blob(digest, merged)
    shutil.rmtree(staging, ignore_errors=True)
    return digest, moved


def _fetch_merged(
    plan: InstallPlan, reader: RangeReader, staging: Path, listener: Listener, connections: int
) -> tuple[str, int]:
    """The one pass: every shard straight to its place in the merged file."""
    merged = staging / MERGED
    head = plan.layout.header if plan.layout else b""
    with store_failures(merged), merged.open("r+b" if merged.exists() else "x+b") as out:
        out.write(head)
        out.truncate(plan.size)
    heads = {index: header.raw if plan.layout else b"" for index, header in enumerate(plan.headers)}
    jobs = make_jobs(
        plan.shards,
        staged_pieces(plan),
        dict.fromkeys(heads, merged),
        heads,
        plan.size,
    )
    _verify_headers_only(plan, listener)
    listener(StepStarted("download", f"{len(plan.shards)} shards, {format_bytes(plan.size)}"))
    whole = hashlib.sha256(head) if plan.layout else None
    with _interruptible(
        Transfer(jobs, len(plan.shards), reader, staging, connections, listener)
    ) as transfer:
        digests = transfer.run(whole)
    if plan.layout:
        _require_zero_gaps(merged, plan.layout.gaps)
    # A single file is the blob as it is: one digest serves both.
    return f"sha256:{digests.whole or digests.shards[0]}", transfer.moved


def _fetch_shards(
    plan: InstallPlan, reader: RangeReader, staging: Path, listener: Listener, connections: int
) -> int:
    """The named road: every shard into a file of its own, with the name the program expects."""
    count = len(plan.shards)
    files = {index: staging / shard_file_name("model", index + 1, count) for index in range(count)}
    jobs = make_jobs(plan.shards, staged_pieces(plan), files, dict.fromkeys(files, b""), 0)
    listener(StepStarted("download", f"{count} shards"))
    with _interruptible(
        Transfer(jobs, len(plan.shards), reader, staging, connections, listener)
    ) as transfer:
        transfer.run(None)
    return transfer.moved


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
    digest = hashlib.sha256()
    read: Callable[[int], bytes]
    with store_failures(path), path.open("rb") as file:
        os.fsync(file.fileno())
        read = file.read
        for block in iter(lambda: read(_HASH_BLOCK), b""):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _register(plan: InstallPlan, store: Store, digest: str) -> None:
    """Small layers and Modelfiles first, then the ledger, the manifests last."""
    manifests = {}
    for model in plan.models:
        for layer in (model.config, *model.small):
            store.put_blob(layer.digest, layer.data)
        text = replace(model.modelfile, base=str(store.blob_path(digest))).render()
        store.write_modelfile(model.name, text)
        weights = layer_entry(MODEL, digest, plan.size)
        manifests[model.name] = manifest_bytes(model.config, weights, model.small)
    store.write_ledger(
        digest,
        {
            "dsollama": __version__,
            "installed": datetime.now(UTC).isoformat(timespec="seconds"),
            "endpoint": plan.endpoint,
            "repository": plan.repository,
            "commit": plan.commit,
            "quant": plan.quant,
            "files": [shard.path for shard in plan.shards],
            "shards": [shard.sha256 for shard in plan.shards],
            "names": sorted(str(model.name) for model in plan.models),
        },
    )
    store.put_manifests(manifests)
