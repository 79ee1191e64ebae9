"""Stores that somebody has filled to take memory and time: what lies in each, and nothing else."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dsollama.gguf import encode as gg
from dsollama.manifest.layers import CONFIG, MODEL, PARAMS, SYSTEM, TEMPLATE
from dsollama.manifest.manifest import MAX_MANIFEST_BYTES
from dsollama.manifest.names import parse_name
from dsollama.store.store import Store
from handmade import HEX, digest_of, ledger_entry, manifest, put, put_blob, put_ours

NAME = "m:x"
"""A model that every store has, whatever else there is."""

MIB = 2**20
LARGE = 16 * MIB
TIB = 2**40
LIBRARY = "manifests/registry.ollama.ai/library"
WEIGHTS = gg.encode_header(
    [gg.encode_key_value("general.architecture", gg.STRING, "deepseek2")],
    [gg.encode_tensor_info(b"output.weight", (32,), 0, 0)],
) + bytes(128)


def honest(store: Store) -> Path:
    """Put a right model of dsollama's into the store, and return its manifest's place."""
    path = put_ours(store, NAME, WEIGHTS)
    put_blob(store, b"{}")
    path.write_bytes(manifest(b"{}", (MODEL, WEIGHTS), (TEMPLATE, b"t")))
    return path


def filled(head: bytes, item: bytes, tail: bytes, size: int) -> bytes:
    """Return JSON of `size` bytes or a little less, most of it copies of `item`."""
    count = (size - len(head) - len(tail) + 1) // (len(item) + 1)
    return head + b",".join([item] * count) + tail


def entry(data: bytes = WEIGHTS, kind: str = MODEL) -> bytes:
    return json.dumps({"mediaType": kind, "digest": digest_of(data), "size": len(data)}).encode()


def head() -> bytes:
    return b'{"config":' + entry(b"config", CONFIG) + b',"layers":[' + entry()


def layers_of(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield b'{"mediaType":"","digest":"sha256:%064x","size":1}' % number


def shapes(size: int) -> dict[str, bytes]:
    """Return manifests of about `size` bytes: what costs most as objects."""
    many = b",".join(layers_of((size - 400) // 115))
    return {
        "layers": head() + b"," + many + b"]}",
        "one-layer": filled(head() + b",", entry(), b"]}", size),
        "empty-layers": filled(head() + b",", b'{"digest":""}', b"]}", size),
        "lists": filled(head() + b'],"x":[', b"[]", b"]}", size),
        "objects": filled(head() + b'],"x":[', b"{}", b"]}", size),
        "numbers": filled(head() + b'],"x":[', b"1e9", b"]}", size),
        "keys": filled(head() + b'],"x":1,', b'"":1', b"}", size),
        "layer-keys": filled(head() + b"],", b'"layers":[]', b"}", size),
        "deep": head() + b'],"x":' + b"[" * (size // 2) + b"]" * (size // 2 - 400) + b"}",
        "long": head() + b'],"x":"' + b"a" * (size - 400) + b'"}',
        "escapes": filled(head() + b'],"x":["', b"\\u0073", b'"]}', size),
        "escaped-digests": filled(
            head() + b'],"x":[', b'"\\u0073ha256:' + b"1" * 64 + b'"', b"]}", size
        ),
        "wide": head() + b'],"x":"' + "\U0001f40b".encode() * ((size - 400) // 4) + b'"}',
        "mentions": head() + b'],"x":"' + b" ".join(
            b"sha256:%064x" % number for number in range((size - 400) // 72)) + b'"}',
        "endless-number": head() + b'],"x":' + b"9" * (size - 400) + b"}",
        "spaces": b" " * size,
    }  # fmt: skip


def large_manifests(store: Store) -> None:
    for tag, data in shapes(LARGE).items():
        put(store, f"{LIBRARY}/large/{tag}", data)


def manifests_at_the_limit(store: Store) -> None:
    """Just as large as may be read, and more than one of each."""
    for number in range(3):
        for tag, data in shapes(MAX_MANIFEST_BYTES).items():
            put(store, f"{LIBRARY}/limit-{number}/{tag}", data[:MAX_MANIFEST_BYTES])


def many_manifests(store: Store) -> None:
    """20,000 names of one model, as a user's script could make them."""
    data = manifest(b"config", (MODEL, WEIGHTS), (TEMPLATE, b"t"))
    for number in range(20_000):
        put(store, f"{LIBRARY}/many-{number % 200}/{number}", data)


def many_layers(store: Store) -> None:
    """2,000 manifests that name 100 blobs each, all different."""
    for number in range(2_000):
        layers = b",".join(
            b'{"mediaType":"","digest":"sha256:%064x","size":1}' % (number * 100 + each)
            for each in range(100)
        )
        put(store, f"{LIBRARY}/layers-{number}/x", head() + b"," + layers + b"]}")


def twins(store: Store) -> None:
    """Names that differ in case only: two of 4,000 names, and two tags of all of them."""
    data = manifest(b"config", (MODEL, WEIGHTS), (TEMPLATE, b"t"))
    for number in range(4_000):
        for name, tag in ((f"twin-{number}", "a"), (f"TWIN-{number}", "A")):
            put(store, f"{LIBRARY}/{name}/{tag}", data)


def folders_of_manifests(store: Store) -> None:
    """Folders without an end: 15,000 beside each other, and 500 in each other."""
    for number in range(15_000):
        (store.root / LIBRARY / f"folder-{number}").mkdir(parents=True)
    deep = store.root / "manifests" / "/".join(["deep"] * 500)
    deep.mkdir(parents=True)
    put(store, f"manifests/{'/'.join(['deep'] * 500)}/x", b"x")


SMALL = {CONFIG: b"config", PARAMS: b'{"stop": "<a>"}', TEMPLATE: b"t", SYSTEM: b"s"}


def with_small(store: Store, name: str, **changed: bytes) -> None:
    """Write a model some of whose small layers are these."""
    kinds = {"config": CONFIG, "params": PARAMS, "template": TEMPLATE, "system": SYSTEM}
    small = SMALL | {CONFIG: b"{}"} | {kinds[each]: data for each, data in changed.items()}
    for data in (*small.values(), WEIGHTS):
        put_blob(store, data)
    layers = ((MODEL, WEIGHTS), *((each, small[each]) for each in (PARAMS, TEMPLATE, SYSTEM)))
    put(store, f"manifests/{parse_name(name).path}", manifest(small[CONFIG], *layers))


def objects(size: int) -> dict[str, bytes]:
    """Return JSON objects of about `size` bytes: what costs most."""
    return {
        "lists": filled(b'{"x":[', b"[]", b"]}", size),
        "pairs": b'{"x":1,' + b",".join(b'"%d":{}' % each for each in range(size // 12)) + b"}",
        "text": b'{"x":"' + b"a" * (size - 10) + b'"}',
        "deep": b'{"x":' + b"[" * (size - 6),
        "number": b'{"x":' + b"9" * (size - 6) + b"}",
        "escapes": filled(b'{"x":"', b"\\u0073", b'"}', size),
    }


def large_layers(store: Store) -> None:
    """Configs, params, templates and systems: of 16 MiB, and as large as they are read."""
    for size in (LARGE, MIB, 4 * MIB):
        for shape, data in objects(size).items():
            with_small(store, f"config-{size}:{shape}", config=data)
            with_small(store, f"params-{size}:{shape}", params=data)
        wide = "\U0001f40b".encode() + b"\n" * (size - 4)
        with_small(store, f"text-{size}:wide", template=wide, system=wide[::-1][:-4])
        with_small(store, f"text-{size}:control", template=b"\x1b" * size, system=b"\x1b" * size)
    with_small(store, NAME, template="\U0001f40b".encode() + b"\x1b" * (4 * MIB - 4))


def ledger_shapes(size: int) -> dict[str, bytes]:
    """Return ledger entries of about `size` bytes."""
    import msgspec

    usual = json.loads(msgspec.json.encode(ledger_entry(WEIGHTS, NAME)))

    def with_many(field: str, item: object) -> bytes:
        one = json.dumps(item, separators=(",", ":")).encode()
        rest = {key: value for key, value in usual.items() if key != field}
        start = json.dumps(rest).encode()[:-1] + f', "{field}": ['.encode()
        return filled(start, one, b"]}", size)

    return {
        "sources": with_many("sources", {"path": "", "size": 0, "sha256": None}),
        "spans": with_many("spans", {"file": 0, "source": 0, "target": 0, "size": 0}),
        "prefixes": with_many("prefixes", HEX),
        "names": with_many("names", "ab"),
        "unknown": with_many("unknown", []),
    }


def large_ledger(store: Store) -> None:
    """Entries of 16 MiB and of 4 MiB, of every shape, and of blobs that are there."""
    number = itertools.count()
    for size in (LARGE, 4 * MIB):
        for data in ledger_shapes(size).values():
            blob = put_blob(store, b"%d" % next(number))
            put(store, f".dsollama/ledger/{blob.name[7:]}.json", data)
    repeated = ledger_shapes(4 * MIB)["names"]
    for each in range(12):
        put(store, f".dsollama/ledger/{each:064x}.json", repeated)
    put(store, f".dsollama/ledger/{digest_of(WEIGHTS)[7:]}.json", ledger_shapes(3 * MIB)["names"])


def many_ledger_entries(store: Store) -> None:
    data = store.ledger.path(digest_of(WEIGHTS)).read_bytes()
    for number in range(12_000):
        put(store, f".dsollama/ledger/{number:064x}.json", data)


RECORD = {
    "endpoint": "http://127.0.0.1:1", "repository": "unsloth/DeepSeek-V3.1-Terminus-GGUF",
    "commit": "1" * 40, "quant": "UD-Q2_K_XL", "merger": "native", "split": True,
    "files": [{"path": "a.gguf", "size": 10, "sha256": HEX}], "model": "v3.1-terminus",
    "name": None, "variants": [], "version": 1,
}  # fmt: skip
JOURNAL = b'{"done":{"0":1},"boot":"","version":2}'


def stopped_install(store: Store, key: str, record: bytes, journal: bytes = JOURNAL) -> None:
    put(store, f".dsollama/staging/{key}/install.json", record)
    put(store, f".dsollama/staging/{key}/journal.json", journal)
    put(store, f".dsollama/staging/{key}/merged.gguf", b"x")


def many_stopped_installs(store: Store) -> None:
    """10,000 staging folders, each of an install that could go on."""
    for number in range(10_000):
        record = RECORD | {"quant": f"Q{number % 10}_K", "commit": f"{number:040x}"}
        stopped_install(store, f"{number:016x}", json.dumps(record).encode())


def large_records(store: Store) -> None:
    """Records and journals of stopped installs and removals, of 16 MiB and as large as is read."""
    rest = {key: value for key, value in RECORD.items() if key != "files"}
    file = json.dumps(RECORD["files"]).encode()[1:-1]
    for number, size in enumerate([LARGE, *[4 * MIB] * 15]):
        start = json.dumps(rest).encode()[:-1] + b', "files": ['
        claims = b'{"done":{' + b",".join(b'"%d":1' % each for each in range(size // 11))
        journal = claims + b'},"boot":"","version":2}'
        stopped_install(store, f"{number:016x}", filled(start, file, b"]}", size), journal)
        stopped_install(store, f"{number + 100:016x}", json.dumps(RECORD).encode(), journal[:MIB])
        digests = b",".join(b'"sha256:%064x"' % each for each in range(size // 74))
        removal = b'{"names":["m:x"],"digests":[' + digests + b"]}"
        put(store, f".dsollama/removing/{number}.json", removal)
        put(store, f".dsollama/removing/{number}-b.json",
            filled(b'{"digests":[],"names":[', b'"ab"', b"]}", size))  # fmt: skip


def many_removals(store: Store) -> None:
    for number in range(20_000):
        data = b'{"names":["m:x"],"digests":["sha256:%064x"]}' % number
        put(store, f".dsollama/removing/{number}.json", data)


def places(store: Store) -> list[Path]:
    """Return where files of Ollama's and of dsollama's go, of this model and of its install."""
    own = store.own
    names = (".new", "")
    staged = ("install.json", "journal.json", "progress.json", "merged.gguf", "lock", "consumed")
    return [
        store.root / LIBRARY / "place" / "manifest",
        store.root / LIBRARY / "deepseek-v3.1-terminus" / "UD-Q2_K_XL",
        store.blob_path(digest_of(b"place")),
        store.root / "blobs" / f"sha256-{HEX}-partial",
        store.ledger.path(digest_of(b"place")),
        store.ledger.path(digest_of(WEIGHTS)),
        own / "removing" / "1-2.json",
        own / "modelfiles" / parse_name(NAME).path,
        own / "modelfiles" / parse_name("place:manifest").path,
        own / "tmp" / f"{digest_of(WEIGHTS)[7:]}.json",
        own / "tmp" / "1-2",
        *(own / "staging" / "k" / f"{each}{suffix}" for each in staged for suffix in names),
    ]


def named_place(store: Store) -> None:
    """Let a manifest name what lies at a blob's place, with a size of its own."""
    layers = ((MODEL, WEIGHTS), (TEMPLATE, b"place"))
    put_blob(store, b"{}")
    put(store, f"{LIBRARY}/named/x", manifest(b"{}", *layers))


def sparse_files(store: Store) -> None:
    """Files of 1 TiB that take no disk, at every place."""
    for path in places(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, TIB)
    named_place(store)


def pipes(store: Store) -> None:
    """Pipes without a writer, at every place."""
    for path in places(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    named_place(store)


def endless_links(store: Store) -> None:
    """Links to a device that never ends, at every place."""
    for path in places(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/zero")
    named_place(store)


def headers() -> dict[str, bytes]:
    """Return beginnings of weights that claim what no model has."""

    def counted(entries: int, tensors: int, rest: bytes = b"") -> bytes:
        counts = tensors.to_bytes(8, "little") + entries.to_bytes(8, "little")
        return gg.MAGIC + (3).to_bytes(4, "little") + counts + rest

    key = gg.encode_string("a")
    texts = key + b"\x09\0\0\0\x08\0\0\0"
    infos = b"".join(gg.encode_tensor_info(b"%x" % number, [0], 0, 0) for number in range(2**16))
    return {
        "counts": counted(2**60, 2**60),
        "tensors": counted(0, 2**16, infos),
        "keys": counted(2**16, 0, b"".join(
            gg.encode_key_value("k" * 450 + f"{number}", gg.UINT8, 1) for number in range(2**16))),
        "texts": counted(1, 0, texts + ((32 * MIB - 100) // 8).to_bytes(8, "little")),
        "text": counted(1, 0, key + b"\x08\0\0\0" + (31 * MIB).to_bytes(8, "little")),
        "key": counted(1, 0, (31 * MIB).to_bytes(8, "little") + b"\xff" * (31 * MIB)),
        "architecture": gg.encode_header(
            [gg.encode_key_value("general.architecture", gg.STRING, "a" * 31 * MIB)],
            [gg.encode_tensor_info(b"t", (32,), 0, 0)]) + bytes(128),
    }  # fmt: skip


def hostile_headers(store: Store) -> None:
    put_blob(store, b"{}")
    for name, data in headers().items():
        blob = put_blob(store, data)
        os.truncate(blob, 400 * MIB)
        put(store, f"{LIBRARY}/header/{name}", manifest(b"{}", (MODEL, data)))


def small_files(store: Store) -> None:
    """250,000 small files in dsollama's folders."""
    places = ("tmp", "removing", "ledger", "modelfiles/a", "staging/k", "x")
    for place in places:
        folder = store.own / place
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(42_000):
            os.close(os.open(folder / f"{number:016x}", os.O_CREAT | os.O_WRONLY, 0o644))


def orphans(store: Store) -> None:
    """110,000 blobs that nothing names, and as many parts of downloads."""
    folder = store.root / "blobs"
    for number in range(110_000):
        for name in (f"sha256-{number:064x}", f"sha256-{number:064x}-partial-0"):
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o644))


STORES: tuple[Callable[[Store], None], ...] = (
    large_manifests, manifests_at_the_limit, many_manifests, many_layers, twins,
    folders_of_manifests, large_layers, large_ledger, many_ledger_entries, many_stopped_installs,
    large_records, many_removals, sparse_files, pipes, endless_links, hostile_headers,
    small_files, orphans,
)  # fmt: skip
