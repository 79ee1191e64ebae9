"""Giving weights their names: all of them or none, whatever stops the program in between.

A registration is written down, the old manifests with it, before the first name changes, and is
forgotten after the last one. Who takes the store's lock next finishes what was killed: forwards if
everything is there that the new manifests name, else backwards. What somebody else has changed
since stays as it is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dsollama.errors import InvalidNameError, StoreError, StoreNotWritableError
from dsollama.manifest.manifest import MAX_MANIFEST_BYTES, Digest
from dsollama.manifest.names import ModelName, parse_name
from dsollama.span import Count
from dsollama.store.files import read_small, store_failures, sync_folder, write_atomically
from dsollama.store.ledger import Text

if TYPE_CHECKING:
    from dsollama.store.store import Store

RECORD = "registering.json"
MAX_RECORD_BYTES = 8 * 2**20
"""Of manifests and Modelfiles, which have kilobytes."""

_MENTION = re.compile(rb"sha256[:-]([0-9a-f]{64})")
_ODD = b"\0"
_NOTHING = (errno.ENOENT, errno.ENOTDIR)


class Change(msgspec.Struct, frozen=True):
    """A file's content before and after; None where it is not there."""

    before: bytes | None
    after: bytes


class Named(msgspec.Struct, frozen=True):
    """What a name gets: its manifest, and dsollama's Modelfile of it."""

    manifest: Change
    modelfile: Change


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One registration.

    Attributes:
        weights: digest of the model's blob.
        size: its bytes.
        small: the other layers of the new manifests, by digest.
        names: what becomes of each name.
    """

    weights: Digest
    size: Count
    small: dict[Digest, bytes]
    names: dict[Text, Named]


def plan_registration(
    store: Store,
    weights: str,
    size: int,
    small: Mapping[str, bytes],
    names: Mapping[ModelName, tuple[bytes, str]],
) -> Registration:
    """Look at what the names have now; nothing is changed.

    Args:
        store: where; the caller is `changing` it.
        weights: as in Registration.
        size: as in Registration.
        small: as in Registration.
        names: the new manifest and Modelfile of each.

    Raises:
        StoreError: something lies in the way.
    """
    return Registration(
        weights=weights,
        size=size,
        small=dict(small),
        names={
            str(name): Named(
                Change(_content(store.manifest_path(name)), manifest),
                Change(_content(store.modelfile_path(name)), modelfile.encode()),
            )
            for name, (manifest, modelfile) in names.items()
        },
    )


@contextmanager
def written_down(store: Store, registration: Registration) -> Iterator[None]:
    """Keep the registration on the disk inside the block, which gives the names and checks them.

    If the block fails, the names are taken back; else the ledger notes whose they are.

    Raises:
        StoreError: it cannot be written; or an earlier one is neither finished nor taken back.
    """
    finish(store)
    data = msgspec.json.encode(registration) + b"\n"
    if len(data) > MAX_RECORD_BYTES:
        raise StoreNotWritableError(
            f"What has the names {' and '.join(registration.names)} is too large to be kept.",
            "Move these manifests out of the store, or take another --name.",
        )
    write_atomically(_record(store), data, store.temporary())
    try:
        yield
    except BaseException:
        with suppress(StoreError):  # else whoever changes the store next takes them back
            _take_back(store, registration)
            _forget(store)
        raise
    with suppress(StoreError):  # the models are there, whatever the ledger says
        store.ledger.give(registration.weights, registration.names)
    with suppress(StoreError):  # it is found to be done, then
        _forget(store)


def give_names(store: Store, registration: Registration) -> None:
    """Write the small layers, then the manifests; the registration is written down.

    Raises:
        StoreError: one cannot be written.
    """
    put_small_layers(store, registration)
    for path, change in _files(store, registration):
        write_atomically(path, change.after, store.temporary())


def put_small_layers(store: Store, registration: Registration) -> None:
    """Write the small layers that are not there, or no longer.

    Raises:
        StoreError: one cannot be written.
    """
    for digest, data in registration.small.items():
        store.put_blob(digest, data)


def finish(store: Store) -> None:
    """Finish, or take back, a registration that was killed; the caller is `changing` the store.

    Raises:
        StoreError: neither can be done; both are tried again the next time.
    """
    registration = pending(store)
    if registration is not None:
        if store.has_blob(registration.weights, registration.size):
            try:
                _go_on(store, registration)
            except StoreError:
                _take_back(store, registration)
        else:
            _take_back(store, registration)
    if os.path.lexists(_record(store)):
        _forget(store)


def pending(store: Store) -> Registration | None:
    """Return the registration that was killed, or is at work; None where there is none."""
    try:
        data = read_small(_record(store), MAX_RECORD_BYTES, follow=False)
        found = msgspec.json.decode(data, type=Registration)
        list(map(parse_name, found.names))
    except (OSError, ValueError, RecursionError, InvalidNameError):
        return None
    forged = any(f"sha256:{sha256(x).hexdigest()}" != digest for digest, x in found.small.items())
    return None if forged else found


def needed(store: Store) -> frozenset[str]:
    """Return the digests that a pending registration needs, whichever way it is finished."""
    registration = pending(store)
    if registration is None:
        return frozenset()
    before = (each.manifest.before or b"" for each in registration.names.values())
    mentioned = (each.decode() for text in before for each in _MENTION.findall(text))
    return frozenset(
        {registration.weights, *registration.small, *(f"sha256:{each}" for each in mentioned)}
    )


def _go_on(store: Store, registration: Registration) -> None:
    put_small_layers(store, registration)
    for path, change in _files(store, registration):
        if _content(path, odd=_ODD) == change.before:
            write_atomically(path, change.after, store.temporary())
    names = [
        text
        for text, named in registration.names.items()
        if _content(store.manifest_path(parse_name(text)), odd=_ODD) == named.manifest.after
    ]
    with suppress(StoreError):
        store.ledger.give(registration.weights, names)


def _take_back(store: Store, registration: Registration) -> None:
    """Put back what was there, the manifests first."""
    for path, change in reversed(_files(store, registration)):
        if change.before != change.after and _content(path, odd=_ODD) == change.after:
            if change.before is not None:
                write_atomically(path, change.before, store.temporary())
            else:
                with store_failures(path):
                    path.unlink(missing_ok=True)
                    sync_folder(path.parent)


def _files(store: Store, registration: Registration) -> list[tuple[Path, Change]]:
    """Return all files that change, the manifests last."""
    names = [(parse_name(text), named) for text, named in registration.names.items()]
    modelfiles = [(store.modelfile_path(name), named.modelfile) for name, named in names]
    return modelfiles + [(store.manifest_path(name), named.manifest) for name, named in names]


def _content(path: Path, odd: bytes | None = None) -> bytes | None:
    """Return what a file holds; None where there is none.

    Args:
        path: the file.
        odd: what stands for something that cannot be read; None: that is an error.
    """
    try:
        return read_small(path, MAX_MANIFEST_BYTES)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        if odd is not None:
            return odd
        with store_failures(path):
            raise


def _record(store: Store) -> Path:
    return store.own / RECORD


def _forget(store: Store) -> None:
    with store_failures(_record(store)):
        _record(store).unlink(missing_ok=True)
        sync_folder(store.own)
