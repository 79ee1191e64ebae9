"""Weights that no engine could load are refused before the download, and told by `verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.errors import DsollamaError, MalformedGgufError
from dsollama.gguf import encode as gg
from dsollama.gguf.header import MAX_KEY_BYTES, parse_header
from dsollama.gguf.loadable import ARCHITECTURE, architecture
from dsollama.manifest.layers import MODEL
from dsollama.manifest.names import parse_name
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import HubRepository
from handmade import WEIGHTS, manifest, put, put_blob

from conftest import Bench

TENSOR = gg.encode_tensor_info(b"output.weight", (32,), 0, 0)
EMPTY = gg.encode_tensor_info(b"output.weight", (0,), 0, 0)
QUANT = "TQ1_0"


def file_of(name: str | bytes | None, tensors: Sequence[bytes] = (TENSOR,)) -> bytes:
    """Return a whole GGUF of one tensor; its data fits where it has any elements."""
    entries = [] if name is None else [text_entry(ARCHITECTURE, name)]
    return gg.encode_header(entries, tensors) + bytes(128)[: 128 * (tensors == (TENSOR,))]


def text_entry(key: str, value: str | bytes) -> bytes:
    return gg.encode_string(key) + gg.STRING.to_bytes(4, "little") + gg.encode_string(value)


BAD = {
    "3 MiB": (file_of("a" * 3 * 2**20), "is no name of a model: 'aaaa"),
    "65 letters": (file_of("a" * 65), "is no name of a model"),
    "none": (file_of(None), "does not say which model"),
    "an empty one": (file_of(""), "is no name of a model: ''"),
    "a number": (
        gg.encode_header([gg.encode_key_value(ARCHITECTURE, gg.UINT32, 5)], [TENSOR]) + bytes(128),
        "does not say which model",
    ),
    "a line": (file_of("deepseek2\nFROM x"), "is no name of a model"),
    "an escape": (file_of("\x1b[2J"), "is no name of a model"),
    "no text": (file_of(b"\xff\xfe"), "is no name of a model"),
    "a space": (file_of("deep seek"), "is no name of a model"),
    "no tensors": (file_of("deepseek2", ()), "holds no tensors"),
    "tensors without elements": (file_of("deepseek2", (EMPTY,)), "holds no tensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_that_no_engine_could_load_are_refused_in_the_plan(case: str, bench: Bench) -> None:
    data, sentence = BAD[case]
    offer(bench, data)
    with pytest.raises(MalformedGgufError, match=sentence) as caught:
        bench.plan(QUANT)
    assert len(str(caught.value)) < 300
    assert caught.value.hint
    assert not bench.store.exists()


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("quick", [False, True])
def test_verify_tells_of_them(case: str, quick: bool, bench: Bench) -> None:
    data, sentence = BAD[case]
    store = Store(bench.store)
    put_blob(store, b"{}")
    put_blob(store, data)
    put(store, f"manifests/{parse_name('m:x').path}", manifest(b"{}", (WEIGHTS, data)))
    report = check(plan_check(bench.settings(), [], quick=quick), print)
    (found,) = report.models[0].findings
    assert (found.code, WEIGHTS) == ("malformed-gguf", MODEL)
    assert sentence in found.message
    assert len(found.message) < 300
    assert found.hint


@pytest.mark.parametrize("name", ["deepseek2", "gpt-oss", "wavtokenizer-dec", "ernie4_5", "a" * 64])
def test_names_as_llama_cpp_has_them_are_taken(name: str, bench: Bench) -> None:
    offer(bench, file_of(name))
    plan = bench.plan(QUANT)
    assert (plan.facts.family, plan.facts.parameters) == (name, 32)
    assert architecture(plan.headers) == name


def test_a_first_shard_without_tensors_is_no_model_without_tensors(bench: Bench) -> None:
    assert bench.plan().facts.family == "deepseek2"


@pytest.mark.parametrize("letter", [b"k", b"\xff", b"\n"])
def test_a_key_is_bounded_and_never_shown_whole(letter: bytes) -> None:
    for count in (MAX_KEY_BYTES, MAX_KEY_BYTES + 1):
        key = gg.encode_string(letter * count)
        data = gg.MAGIC + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little")
        data += key + (99).to_bytes(4, "little") + bytes(64)
        with pytest.raises(MalformedGgufError) as caught:
            parse_header(data, len(data))
        assert len(str(caught.value)) < 500
        assert ("bytes" in str(caught.value)) == (count > MAX_KEY_BYTES)


def offer(bench: Bench, data: bytes) -> Path:
    """Let the Hub have one file of these bytes."""
    path = bench.shards[0].parent / f"model-{QUANT}.gguf"
    path.write_bytes(data)
    repository: HubRepository = bench.repository
    repository.files.clear()
    repository.add(path.name, path)
    assert repository.files[path.name].sha256 == hashlib.sha256(data).hexdigest()
    assert issubclass(MalformedGgufError, DsollamaError)
    return path
