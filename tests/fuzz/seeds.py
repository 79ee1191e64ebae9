"""The first inputs of each target, made of real things: `python tests/fuzz/seeds.py`."""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

import msgspec  # noqa: E402

from dsollama.catalog.models import find_model  # noqa: E402
from dsollama.gguf.header import parse_header  # noqa: E402
from dsollama.manifest.layers import (  # noqa: E402
    MODEL,
    ModelFacts,
    config_layer,
    layer_entry,
    manifest_bytes,
    small_layers,
)
from dsollama.span import Span  # noqa: E402
from dsollama.store.ledger import LedgerEntry, LedgerFile  # noqa: E402
from dsollama.templates.variants import catalog_modelfile, choose_variants  # noqa: E402
from dsollama.testing.tiny_model import tiny_model, write_gguf, write_shards  # noqa: E402
from dsollama.transfer import journal  # noqa: E402
from fuzz.targets import DIGESTS, SEPARATOR  # noqa: E402


def gguf(folder: Path) -> list[bytes]:
    """The headers of the tiny model: whole, and in shards, the first one with and without data."""
    model = tiny_model("")
    write_gguf(folder / "single.gguf", model)
    sets = [[folder / "single.gguf"]]
    sets += [write_shards(folder / "two", "m", model, 2)]
    sets += [write_shards(folder / "three", "m", model, 3, first_empty=True)]
    return [SEPARATOR.join(map(_claimed_and_header, paths)) for paths in sets]


def journal_file(folder: Path) -> list[bytes]:
    """Journals of an install that has begun, and of one that is nearly done."""
    made = []
    for claims in ({0: 50}, {0: 100, 2: 7, 3: 2**39, 4: 1}):
        journal.write_claims(folder, claims)
        made.append((folder / journal.JOURNAL).read_bytes())
    return made


def ledger(_folder: Path) -> list[bytes]:
    """An entry as an install writes it."""
    hexes = ("0" * 64, "f" * 64)
    entry = LedgerEntry(
        size=10, endpoint="https://huggingface.co", repository="o/r", commit="1" * 40,
        quant="UD-Q2_K_XL",
        sources=(LedgerFile("a/b.gguf", 12, hexes[0]), LedgerFile("c", 1, None)),
        spans=(Span(0, 2, 0, 10),), block=4, prefixes=hexes, names=("a:b",),
        installed="2026-01-01T00:00:00+00:00", dsollama="0.1.0",
    )  # fmt: skip
    return [msgspec.json.encode(entry)]


def manifest(_folder: Path) -> list[bytes]:
    """The manifest and the small layers of the catalog's default model, and one of a stop list."""
    model = find_model("v3.1-terminus")
    document = catalog_modelfile(model, choose_variants(model.variants, ["plain"])[0], "")
    config = config_layer(ModelFacts("deepseek2", 671_000_000_000, 10))
    small = small_layers(document)
    text = manifest_bytes(config, layer_entry(MODEL, "sha256:" + "f" * 64, 10), small).decode()
    for layer, digest in zip((config, *small), DIGESTS, strict=False):
        text = text.replace(layer.digest, digest)
    blobs = [config.data, *(b"{{ .Prompt }}" if len(b.data) > 2000 else b.data for b in small)]
    stops = json.dumps({"stop": ["<a>", "b"], "num_ctx": 1, "temperature": 0.5}).encode()
    return [
        SEPARATOR.join((text.encode(), *blobs)),
        SEPARATOR.join((text.encode(), *blobs[:-1], stops)),
    ]


def modelfile(_folder: Path) -> list[bytes]:
    """What Ollama prints, in short."""
    shown = (
        '# Modelfile\n\nFROM /blobs/sha256-00\nTEMPLATE """{{ .System }}\n"q" {{ .Prompt }}"""\n'
        'SYSTEM "  spaces\nand lines "\nPARAMETER stop "a b"\nparameter temperature 0.6\n'
        'MESSAGE user Hi\nLICENSE """MIT\n"""\n'
    )
    return [shown.encode()]


def _claimed_and_header(path: Path) -> bytes:
    data = path.read_bytes()
    return struct.pack("<Q", len(data)) + parse_header(data, len(data)).raw


def main() -> None:
    """Write them into the corpus."""
    for name, make in {
        "gguf": gguf, "journal": journal_file, "ledger": ledger, "manifest": manifest,
        "modelfile": modelfile,
    }.items():  # fmt: skip
        target = HERE / "corpus" / name
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(make(Path(folder)), 1):
                (target / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    main()
