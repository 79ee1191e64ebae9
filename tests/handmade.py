"""Stores built by hand, in the layout that Ollama writes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from dsollama.manifest.names import parse_name
from dsollama.span import Span
from dsollama.store.ledger import LedgerEntry, LedgerFile
from dsollama.store.store import Store

WEIGHTS = "application/vnd.ollama.image.model"
TEMPLATE = "application/vnd.ollama.image.template"
CONFIG = "application/vnd.docker.container.image.v1+json"
HEX = "0" * 64


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(store: Store, place: str, data: bytes = b"x") -> Path:
    path = store.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_blob(store: Store, data: bytes) -> Path:
    return put(store, f"blobs/{digest_of(data).replace(':', '-')}", data)


def manifest(config: bytes, *layers: tuple[str, bytes]) -> bytes:
    def entry(kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    whole = {"schemaVersion": 2, "config": entry(CONFIG, config)}
    return json.dumps(whole | {"layers": [entry(*layer) for layer in layers]}).encode()


def put_model(store: Store, name: str, weights: bytes, template: bytes = b"t") -> Path:
    """Write a model's blobs and its manifest, as Ollama would."""
    for data in (b"config", weights, template):
        put_blob(store, data)
    place = f"manifests/{parse_name(name).path}"
    layers = ((WEIGHTS, weights), (TEMPLATE, template))
    return put(store, place, manifest(b"config", *layers))


def put_ours(store: Store, name: str, weights: bytes, template: bytes = b"t") -> Path:
    """Write a model with what dsollama keeps beside it."""
    path = put_model(store, name, weights, template)
    put(store, f".dsollama/modelfiles/{parse_name(name).path}", f"FROM {name}\n".encode())
    digest = digest_of(weights)
    before = store.ledger.read(digest)
    names = {name, *(before.names if before else ())}
    store.ledger.write(digest, ledger_entry(weights, *names))
    return path


def ledger_entry(weights: bytes, *names: str) -> LedgerEntry:
    return LedgerEntry(
        size=len(weights),
        endpoint="http://127.0.0.1:1",
        repository="o/r",
        commit="1" * 40,
        quant="UD-Q2_K_XL",
        sources=(LedgerFile("a.gguf", len(weights), HEX),),
        spans=(Span(0, 0, 0, len(weights)),),
        block=4,
        prefixes=(HEX,),
        names=tuple(sorted(names)),
        installed="2026-01-01T00:00:00+00:00",
        dsollama="0.1.0",
    )


def tree(root: Path) -> dict[str, bytes | str]:
    """Everything below `root`: the bytes of files, where links lead, and empty folders.

    The store's lock, and what dsollama leaves empty in its own folder, are left out.
    """
    found: dict[str, bytes | str] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                found[str(path.relative_to(root))] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path.relative_to(root))] = path.read_bytes()
            elif not path.is_dir():
                found[str(path.relative_to(root))] = "special"
            elif not any(path.iterdir()):
                found[str(path.relative_to(root))] = "empty folder"
    for ours in ("lock", "tmp", "removing"):  # of these the last two only where they are empty
        found.pop(f".dsollama/{ours}", None)
    return found


def blobs(store: Store) -> set[str]:
    folder = store.root / "blobs"
    return {path.name.replace("-", ":") for path in folder.iterdir()} if folder.is_dir() else set()
