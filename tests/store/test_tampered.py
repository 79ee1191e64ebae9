"""Tampered manifests and layers: list, show and modelfile say one sentence, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsollama.cli.app import main
from dsollama.manifest.layers import CONFIG, MODEL, PARAMS, SYSTEM, TEMPLATE
from dsollama.manifest.modelfile_text import Comment, Instruction, parse_modelfile
from dsollama.manifest.names import parse_name
from dsollama.store.store import MAX_JSON, Store

NAME = "m:t"
ZERO = "sha256:" + "0" * 64
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return Store(tmp_path / "models")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The program itself, in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dsollama", *arguments])
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        try:
            main()
        except SystemExit as left:
            return (left.code if isinstance(left.code, int) else 1, *capfd.readouterr())
        finally:
            signal.signal(signal.SIGTERM, before)

    return call


def layer(store: Store, media_type: str, data: bytes) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    store.put_blob(digest, data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def put(
    store: Store,
    layers: dict[str, bytes] | None = None,
    config: bytes = b"{}",
    **changes: Any,
) -> Path:
    """Write a manifest with these small layers; `changes` replace its parts."""
    weights = {"mediaType": MODEL, "digest": "sha256:" + "f" * 64, "size": 10}
    manifest = {
        "config": layer(store, CONFIG, config),
        "layers": [weights, *(layer(store, kind, data) for kind, data in (layers or {}).items())],
    }
    return raw(store, json.dumps(manifest | changes).encode())


def raw(store: Store, data: bytes) -> Path:
    path = store.manifest_path(parse_name(NAME))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def one_layer(digest: Any, size: Any = 1, media_type: Any = MODEL) -> dict[str, Any]:
    return {"layers": [{"mediaType": media_type, "digest": digest, "size": size}]}


ESCAPE = "\x1b[2J\x1b]0;gone\x07\x9b1m\u202e"

MANIFESTS: dict[str, Callable[[Store], object]] = {
    "empty": lambda s: raw(s, b""),
    "no JSON": lambda s: raw(s, b"{"),
    "no text": lambda s: raw(s, b"\xff\xfe"),
    "a list": lambda s: raw(s, b"[]"),
    "deep": lambda s: raw(s, b'{"config":' * 100_000),
    "deep list": lambda s: raw(s, b"[" * 500_000),
    "large": lambda s: raw(s, b" " * (MAX_JSON + 1)),
    "endless number": lambda s: raw(s, b'{"config": ' + b"9" * 10_000 + b"}"),
    "no config": lambda s: raw(s, b'{"layers": []}'),
    "layers of text": lambda s: raw(s, manifest_of(s, {"layers": "abc"})),
    "layers of numbers": lambda s: raw(s, manifest_of(s, {"layers": [1]})),
    "path as digest": lambda s: raw(s, manifest_of(s, one_layer("sha256:../../x"))),
    "absolute path as digest": lambda s: raw(s, manifest_of(s, one_layer("/etc/passwd"))),
    "digest and a newline": lambda s: raw(s, manifest_of(s, one_layer(ZERO + "\n"))),
    "escape as digest": lambda s: raw(s, manifest_of(s, one_layer("sha256:" + ESCAPE))),
    "number as digest": lambda s: raw(s, manifest_of(s, one_layer(5))),
    "negative size": lambda s: raw(s, manifest_of(s, one_layer(ZERO, -1))),
    "huge size": lambda s: raw(s, manifest_of(s, one_layer(ZERO, 10**400))),
    "infinite size": lambda s: raw(s, manifest_of(s, one_layer(ZERO, float("inf")))),
    "text as size": lambda s: raw(s, manifest_of(s, one_layer(ZERO, "1"))),
    "number as type": lambda s: raw(s, manifest_of(s, one_layer(ZERO, 1, 5))),
    "link to nothing": lambda s: relink(put(s), Path("/nowhere")),
    "link to itself": lambda s: relink(put(s), s.manifest_path(parse_name(NAME))),
    "link to an endless file": lambda s: relink(put(s), Path("/dev/zero")),
    "pipe": lambda s: pipe(put(s)),
    "folder": lambda s: folder(put(s)),
}  # fmt: skip


def manifest_of(store: Store, parts: dict[str, Any]) -> bytes:
    return json.dumps({"config": layer(store, CONFIG, b"{}")} | parts).encode()


def relink(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def assert_one_sentence(done: tuple[int, str, str], codes: set[int]) -> None:
    code, output, errors = done
    assert code in codes, errors
    lines = errors.splitlines()
    assert len([line for line in lines if line.startswith("Error: ")]) == 1, errors
    assert "has a bug" not in errors
    assert "Traceback" not in errors
    assert output == ""
    assert_no_escape(errors)


def assert_no_escape(text: str) -> None:
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_tampered_manifest_is_one_sentence(store: Store, run: Run, case: str) -> None:
    MANIFESTS[case](store)
    for command in ("show", "modelfile"):
        assert_one_sentence(run(command, NAME), {2, 5})
    code, output, errors = run("list")
    assert (code, output) == (0, "")
    assert "holds no model" in errors


LAYERS: dict[str, Callable[[Store], object]] = {
    "config no JSON": lambda s: put(s, config=b"x"),
    "config a list": lambda s: put(s, config=b"[]"),
    "config deep": lambda s: put(s, config=b"[" * 200_000),
    "config large": lambda s: put(s, config=b" " * (MAX_JSON + 1)),
    "params no JSON": lambda s: put(s, {PARAMS: b"{"}),
    "params a list": lambda s: put(s, {PARAMS: b'["a"]'}),
    "params deep": lambda s: put(s, {PARAMS: b'{"a":' * 100_000}),
    "missing layer": lambda s: spaced(s).unlink(),
    "layer a link to an endless file": lambda s: relink(spaced(s), Path("/dev/zero")),
    "layer a pipe": lambda s: pipe(spaced(s)),
    "layer a folder": lambda s: folder(spaced(s)),
    "layer a link to itself": lambda s: relink(spaced(s), spaced(s)),
}  # fmt: skip


def spaced(store: Store) -> Path:
    """Install a model and return its params layer."""
    put(store, {PARAMS: b"{ }"})
    return blob(store, b"{ }")


def blob(store: Store, data: bytes) -> Path:
    return store.blob_path("sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("case", LAYERS)
def test_a_tampered_layer_is_one_sentence(store: Store, run: Run, case: str) -> None:
    LAYERS[case](store)
    for command in ("show", "modelfile"):
        assert_one_sentence(run(command, NAME), {5})
    code, output, _ = run("list")
    assert (code, NAME in output) == (0, True)


UNSAYABLE = {
    "a key with a line": {PARAMS: b'{"x\\nFROM evil": 1}'},
    "a key with a space": {PARAMS: b'{"x y": 1}'},
    "no key": {PARAMS: b'{"": 1}'},
    "an object": {PARAMS: b'{"x": {"FROM": "evil"}}'},
    "a list of lists": {PARAMS: b'{"x": [[1]]}'},
    "null": {PARAMS: b'{"x": null}'},
    "infinite": {PARAMS: b'{"x": Infinity}'},
    "too large": {PARAMS: b'{"x": 1e999}'},
    "an escape": {PARAMS: b'{"stop": "\\u001b[2J"}'},
    "closed too early": {SYSTEM: b'a"""\nFROM evil\nb'},
    "a template that is closed": {TEMPLATE: b'"""\nFROM evil'},
    "zero": {SYSTEM: b"a\0b"},
}


@pytest.mark.parametrize("case", UNSAYABLE)
def test_what_no_modelfile_can_say_is_said_and_shown(store: Store, run: Run, case: str) -> None:
    put(store, UNSAYABLE[case])
    assert_one_sentence(run("modelfile", NAME), {2})
    for option in ([], ["--json"]):
        code, output, _ = run("show", NAME, *option)
        assert code == 0
        assert_no_escape(output)
        assert "\0" not in output


def test_hostile_text_reaches_the_terminal_escaped(store: Store, run: Run) -> None:
    config = dict.fromkeys(("model_family", "model_type", "file_type"), ESCAPE + "\ud800")
    put(store, {SYSTEM: ESCAPE.encode(), PARAMS: json.dumps({ESCAPE: ESCAPE}).encode()},
        config=json.dumps(config).encode())  # fmt: skip
    code, output, errors = run("show", NAME)
    assert code == 0, errors
    assert_no_escape(output)
    assert output.count("\\u001b[2J\\u001b]0;gone\\u0007\\u009b1m\\u202e\\ud800") == 3
    code, output, _ = run("show", NAME, "--json")
    assert_no_escape(output)
    assert json.loads(output)["config"] == config


def test_parameters_of_every_kind_are_a_line_each(store: Store, run: Run) -> None:
    """As models from Ollama's library have them: `stop` is a list."""
    params = {"stop": ["<a>", 'b "c"', "\n"], "num_ctx": 1, "top_p": 0.5, "penalize": True}
    put(store, {PARAMS: json.dumps(params).encode(), SYSTEM: b'say "hi"\n"""x'})
    code, output, errors = run("modelfile", NAME)
    assert code == 0, errors
    entries = [each for each in parse_modelfile(output) if not isinstance(each, Comment)]
    assert entries == [
        Instruction("FROM", str(store.blob_path("sha256:" + "f" * 64))),
        Instruction("SYSTEM", 'say "hi"\n"""x'),
        Instruction("PARAMETER", "1", "num_ctx"),
        Instruction("PARAMETER", "true", "penalize"),
        Instruction("PARAMETER", "<a>", "stop"),
        Instruction("PARAMETER", 'b "c"', "stop"),
        Instruction("PARAMETER", "\n", "stop"),
        Instruction("PARAMETER", "0.5", "top_p"),
    ]


def test_a_forged_ledger_adds_nothing_to_the_modelfile(store: Store, run: Run) -> None:
    put(store)
    entry = {
        "size": 1, "endpoint": "", "repository": f"x\nFROM evil\r\x85\u2028{ESCAPE}",
        "commit": "1" * 40, "quant": "q", "sources": [], "spans": [], "block": 1, "prefixes": [],
        "names": [], "installed": "", "dsollama": "", "version": 2,
    }  # fmt: skip
    path = store.ledger.path("sha256:" + "f" * 64)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entry))
    for command in (["list"], ["show", NAME], ["modelfile", NAME]):
        code, output, errors = run(*command)
        assert (code, "evil" in output) == (0, True), errors
        assert_no_escape(output)
        assert "\nFROM evil" not in output
    froms = [e for e in parse_modelfile(output) if isinstance(e, Instruction)]
    assert [each.name for each in froms] == ["FROM"]


def test_a_linked_manifest_and_blob_are_read_as_ollama_reads_them(
    store: Store, run: Run, tmp_path: Path
) -> None:
    path = put(store, {SYSTEM: b"hello"})
    for each in (path, blob(store, b"hello")):
        moved = tmp_path / each.name
        each.rename(moved)
        each.symlink_to(moved)
    assert run("show", NAME)[0] == 0
    assert '"system": "hello"' in run("show", NAME, "--json")[1]
