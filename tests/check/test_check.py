"""`dsollama verify` without a repair: what is right, and each thing that is wrong in words."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from check.conftest import BLOCK, NAMES, Installed, prefixes
from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.check.reading import PIECE_BYTES, BlobReader
from dsollama.events import BytesMoved, Noted
from dsollama.gguf.encode import UINT16, encode_key_value
from dsollama.install.request import Merger
from dsollama.manifest.layers import CONFIG, MODEL, PARAMS, SYSTEM, TEMPLATE, layer_entry
from dsollama.manifest.names import parse_name
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import LoopbackHub
from handmade import put

from conftest import TERMINUS, Bench, make_repository


def test_a_right_store_is_right_and_each_blob_is_read_once(installed: Installed) -> None:
    report = installed.check()
    assert report.right
    assert [model.name for model in report.models] == list(NAMES)
    blobs = {path.name: path.stat().st_size for path in (installed.bench.store / "blobs").iterdir()}
    assert {each.digest.replace(":", "-"): each.hashed for each in report.blobs} == blobs
    moved = [event for event in installed.events if isinstance(event, BytesMoved)]
    assert (moved[-1].done, moved[-1].total) == (report.hashed, sum(blobs.values()))
    assert {event.step for event in moved} == {"verify"}


def test_one_model_is_checked_alone(installed: Installed) -> None:
    other = installed.small(TEMPLATE, NAMES[1])
    other.unlink()
    assert installed.check(NAMES[0]).right
    assert not installed.check(NAMES[1], NAMES[1]).right
    assert not installed.check().right


@pytest.mark.parametrize("place", ["header", "tensors", "padding", "last byte"])
def test_a_flipped_bit_is_found_with_its_block(place: str, installed: Installed) -> None:
    gap = installed.layout.gaps[0][0] if installed.layout.gaps else len(installed.layout.header) - 1
    at = {"header": 30, "tensors": 5_000_000, "padding": gap, "last byte": len(installed.right) - 1}
    installed.spoil(at[place])
    found = installed.finding()
    start = at[place] // BLOCK * BLOCK
    assert found.code == "wrong-digest"
    end = min(start + BLOCK, len(installed.right))
    assert f"first in bytes {start} to {end}." in found.message
    assert "--repair" in found.hint


def test_without_prefixes_the_damage_is_found_but_not_its_place(installed: Installed) -> None:
    installed.change_entry(prefixes=())
    installed.spoil(5_000_000)
    found = installed.finding()
    assert (found.code, "first in" in found.message) == ("wrong-digest", False)
    assert f"Remove {installed.blob}. Install it again: `" in found.hint


def _run_hint(installed: Installed, hint: str) -> subprocess.CompletedProcess[str]:
    """Run the `dsollama install` that a hint quotes."""
    words = shlex.split(hint.split("`")[1])
    assert words[:2] == ["dsollama", "install"], words
    return installed.command(*words[1:])


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_the_hints_command_puts_the_weights_right(damage: str, installed: Installed) -> None:
    installed.change_entry(prefixes=())
    if damage == "missing":
        installed.blob.unlink()
    else:
        installed.spoil(99)
    found = installed.finding()
    assert found.code == {"missing": "missing-blob"}.get(damage, "wrong-digest")
    if found.hint.startswith("Remove "):
        installed.blob.unlink()
    done = _run_hint(installed, found.hint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(NAMES)
    assert installed.blob.read_bytes() == installed.right
    assert installed.check().right


def test_the_command_has_the_names_that_were_chosen(bench: Bench) -> None:
    done = bench.install(name="mine:q", variants=("thinking",))
    store = Store(bench.store)
    installed = Installed(bench, done.digest, b"", bench.plan().layout)  # type: ignore[arg-type]
    installed.blob.unlink()
    found = installed.finding()
    assert "--name mine:q --variants thinking" in found.hint
    again = _run_hint(installed, found.hint)
    assert again.stdout.split() == ["mine:q-thinking"]
    assert [str(name) for name in store.names()] == ["mine:q-thinking"]
    assert installed.check().right


@pytest.mark.parametrize("media_type", [CONFIG, PARAMS, TEMPLATE])
@pytest.mark.parametrize("damage", ["missing", "damaged", "too long"])
def test_a_small_layer_is_named_and_an_install_writes_it_again(
    media_type: str, damage: str, installed: Installed
) -> None:
    path = installed.small(media_type)
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-2] + b"#\n" if damage == "damaged" else data + b"#")
    report = installed.check(NAMES[0])
    (found,) = report.models[0].findings
    codes = {"missing": "missing-blob", "damaged": "wrong-digest", "too long": "wrong-size"}
    assert found.code == codes[damage]
    word = {CONFIG: "config", PARAMS: "parameters", TEMPLATE: "template"}[media_type]
    assert f"The file of the {word} (" in found.message
    quick = installed.check(NAMES[0], quick=True)
    assert [each.code for each in quick.models[0].findings] == [found.code]
    if damage != "too long":
        assert "not moved again" in found.hint
        before = installed.bench.hub.bytes_sent
        assert _run_hint(installed, found.hint).returncode == 0
        assert installed.bench.hub.bytes_sent - before < 2 * 2**20, "more than headers were moved"
    else:
        before = installed.bench.hub.bytes_sent
        assert installed.check(repair=True).right
        assert installed.bench.hub.bytes_sent == before
    assert path.read_bytes() == data
    assert installed.check().right


@pytest.mark.parametrize(
    ("media_type", "data", "code"),
    [
        (PARAMS, b"[1]", "not-json"),
        (PARAMS, b"{", "not-json"),
        (PARAMS, b"[" * 100_000, "not-json"),
        (CONFIG, b"\xff", "not-text"),
        (TEMPLATE, b"\xff\xfe{{ .Prompt }}", "not-text"),
        (SYSTEM, b"\xff", "not-text"),
    ],
)
def test_a_layer_of_the_right_digest_that_is_not_what_it_should_be(
    media_type: str, data: bytes, code: str, installed: Installed
) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    installed.store.put_blob(digest, data)
    _change_manifest(installed, media_type, digest, len(data))
    for quick in (False, True):
        (found,) = installed.check(NAMES[0], quick=quick).models[0].findings
        assert found.code == code
        assert found.hint


def _change_manifest(installed: Installed, media_type: str, digest: str, size: int) -> None:
    path = installed.store.manifest_path(parse_name(NAMES[0]))
    manifest = json.loads(path.read_bytes())
    entry = layer_entry(media_type, digest, size)
    if media_type == CONFIG:
        manifest["config"] = entry
    else:
        others = [each for each in manifest["layers"] if each["mediaType"] != media_type]
        manifest["layers"] = [entry, *others] if digest else others
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"config": {}, "layers": []}', "[" * 100_000, "\x00"]
)
def test_a_broken_manifest_is_told_with_the_command_that_mends_it(
    text: str, installed: Installed
) -> None:
    installed.store.manifest_path(parse_name(NAMES[0])).write_text(text)
    report = installed.check()
    (found,) = report.models[0].findings
    assert found.code == "broken-manifest"
    assert not report.models[1].findings
    before = installed.bench.hub.bytes_sent
    assert _run_hint(installed, found.hint).returncode == 0
    assert installed.bench.hub.bytes_sent - before < 2 * 2**20
    assert installed.check().right


@pytest.mark.parametrize("digest", ["sha256:zz", "../../etc/passwd", ""])
def test_a_manifest_that_names_no_digest_is_broken(digest: str, installed: Installed) -> None:
    path = installed.store.manifest_path(parse_name(NAMES[0]))
    manifest = json.loads(path.read_bytes())
    manifest["layers"][0]["digest"] = digest
    path.write_text(json.dumps(manifest))
    (found,) = installed.check(NAMES[0]).models[0].findings
    assert found.code == "broken-manifest"


@pytest.mark.parametrize("size", [0, 7, 10**15])
def test_a_manifest_with_another_size_is_at_fault_and_not_the_blob(
    size: int, installed: Installed
) -> None:
    _change_manifest(installed, MODEL, installed.digest, size)
    for how in ({}, {"repair": True}):
        report = installed.check(**how)
        (found,) = report.models[0].findings
        assert found.code == "wrong-size"
        assert f"says that the file of the weights has {size} bytes" in found.message
        assert found.message.endswith("and they are right.")
        assert not report.models[1].findings
        assert installed.blob.read_bytes() == installed.right
    assert installed.check(NAMES[0], quick=True).models[0].findings[0].code == "wrong-size"


def test_a_manifest_without_weights_is_told(installed: Installed) -> None:
    _change_manifest(installed, MODEL, "", 0)
    assert [each.code for each in installed.check().models[0].findings] == ["no-weights"]


def test_a_model_of_another_kind_needs_no_weights(installed: Installed) -> None:
    """What Ollama keeps of a model that runs in its cloud: a config and no layer."""
    data = b'{"model_format":"","remote_host":"https://ollama.com:443","remote_model":"x"}'
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    installed.store.put_blob(digest, data)
    manifest = {"schemaVersion": 2, "config": layer_entry(CONFIG, digest, len(data)), "layers": []}
    name = parse_name("far:cloud")
    put(installed.store, f"manifests/{name.path}", json.dumps(manifest).encode())
    assert installed.check("far:cloud").right


def _weights(installed: Installed, data: bytes) -> None:
    """Let the first name have other weights, of the right digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    installed.store.put_blob(digest, data)
    _change_manifest(installed, MODEL, digest, len(data))


def test_a_shard_as_weights_is_refused_in_words(installed: Installed) -> None:
    _weights(installed, installed.bench.shards[1].read_bytes())
    for quick in (False, True):
        (found,) = installed.check(NAMES[0], quick=quick).models[0].findings
        assert found.code == "split-shard"
        assert "are shard 2 of 3, and Ollama cannot load shards" in found.message
        assert "merge" in found.hint


def test_a_merge_that_lost_tensors_is_told(installed: Installed) -> None:
    """Shard 2 that says of itself what a merged file says."""
    old = encode_key_value("split.count", UINT16, 3)
    data = installed.bench.shards[1].read_bytes()
    assert data.count(old) == 1
    _weights(installed, data.replace(old, encode_key_value("split.count", UINT16, 0)))
    (found,) = installed.check(NAMES[0]).models[0].findings
    assert found.code == "split-metadata"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "not-gguf"),
        (b"<!doctype html><title>Log in</title>", "not-gguf"),
        (b"", "not-gguf"),
        (b"GGUF" + b"\xff" * 60, "malformed-gguf"),
    ],
)
def test_weights_that_cannot_be_loaded_are_told(
    data: bytes, code: str, installed: Installed
) -> None:
    _weights(installed, data)
    for quick in (False, True):
        (found,) = installed.check(NAMES[0], quick=quick).models[0].findings
        assert (found.code, bool(found.hint)) == (code, True)


def test_a_model_that_was_never_split_is_right_and_repaired(single: Path, tmp_path: Path) -> None:
    with LoopbackHub({TERMINUS: make_repository([single], "TQ1_0")}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", [single])
        done = bench.install("TQ1_0")
        right = single.read_bytes()
        installed = Installed(bench, done.digest, right, None)  # type: ignore[arg-type]
        installed.change_entry(block=BLOCK, prefixes=prefixes(right))
        assert installed.check().right
        assert installed.check(quick=True).right
        installed.spoil(30)
        assert installed.check(repair=True).right
        assert installed.blob.read_bytes() == right


def test_what_dsollama_did_not_install_is_checked_too(installed: Installed) -> None:
    installed.store.ledger.remove(installed.digest)
    assert installed.check().right
    installed.spoil(99)
    found = installed.finding(repair=True)
    assert found.code == "wrong-digest"
    assert "does not know where it came from" in found.hint
    assert "ollama pull" in found.hint


def test_another_ones_settings_on_our_weights_are_not_ours_to_install(installed: Installed) -> None:
    name = parse_name("theirs")
    manifest = installed.store.manifest_path(parse_name(NAMES[0])).read_bytes()
    put(installed.store, f"manifests/{name.path}", manifest)
    data = b"{{ .Prompt }}"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    changed = json.loads(manifest)
    changed["layers"][1] = layer_entry(TEMPLATE, digest, len(data))
    put(installed.store, f"manifests/{name.path}", json.dumps(changed).encode())
    (found,) = installed.check("theirs").models[0].findings
    assert found.code == "missing-blob"
    assert "dsollama install hf.co" not in found.hint


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_a_blob_that_is_no_file_is_told_and_does_not_hang(kind: str, installed: Installed) -> None:
    installed.blob.unlink()
    if kind == "folder":
        installed.blob.mkdir()
    elif kind == "pipe":
        os.mkfifo(installed.blob)
    else:
        installed.blob.symlink_to(installed.blob)
    assert installed.finding().code == "unreadable-blob"


def test_a_store_of_another_user_is_told(installed: Installed) -> None:
    plan = plan_check(installed.bench.settings(), [])
    blobs = installed.blob.parent
    root = os.geteuid() == 0  # whom no mode keeps out
    blobs.chmod(0)
    try:
        if root:
            os.seteuid(65534)
        report = check(plan, installed.events.append)
    finally:
        if root:
            os.seteuid(0)
        blobs.chmod(0o755)
    (found, *_) = report.models[0].findings
    assert (found.code, "Permission denied" in found.message) == ("unreadable-blob", True)
    assert "the user who owns the store" in found.hint


def test_an_error_of_the_disk_is_not_taken_for_the_end() -> None:
    """Address 0 of a process is a real file's bytes that give EIO."""
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc/self/mem here, which gives an input/output error")
    with (
        Path("/proc/self/mem").open("rb", buffering=0) as file,
        BlobReader(file, lambda _count: None) as reader,
        pytest.raises(OSError, match="Input/output"),
    ):
        reader.feed(hashlib.sha256(), 0, 10)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES + 5])
def test_the_reader_digests_every_byte_once(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    path = tmp_path / "blob"
    path.write_bytes(data)
    moved: list[int] = []
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file, BlobReader(file, moved.append) as reader:
        reader.feed(digest, 0, size // 3)
        reader.feed(digest, size // 3, size + 100)
    assert digest.digest() == hashlib.sha256(data).digest()
    assert sum(moved) == size


def test_a_blob_elsewhere_by_a_link_is_right(installed: Installed, tmp_path: Path) -> None:
    shutil.move(installed.blob, tmp_path / "elsewhere")
    installed.blob.symlink_to(tmp_path / "elsewhere")
    assert installed.check().right
    installed.spoil(5)
    assert installed.check(repair=True).right
    assert (tmp_path / "elsewhere").read_bytes() == installed.right


def test_wrong_prefixes_do_not_make_a_right_blob_wrong(installed: Installed) -> None:
    forged = list(installed.entry.prefixes)
    forged[3] = "0" * 64
    installed.change_entry(prefixes=tuple(forged))
    assert installed.check().right
    assert any("is right; what the ledger" in e.text for e in installed.events
               if isinstance(e, Noted))  # fmt: skip


def _bytes_read() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar: "):
            return int(line.split()[1])
    raise AssertionError("no rchar")


def test_quick_reads_no_weights(installed: Installed) -> None:
    if not Path("/proc/self/io").exists():
        pytest.skip("no /proc/self/io here, which counts the bytes that are read")
    begin = _bytes_read()
    assert installed.check(quick=True).right
    quick = _bytes_read() - begin
    assert installed.check().right
    whole = _bytes_read() - begin - quick
    assert quick < 1.2 * 2**20, "more than a header was read"
    assert whole > len(installed.right)


def test_quick_sees_a_cut_and_a_spoilt_header_but_no_flipped_tensor(installed: Installed) -> None:
    installed.spoil(5_000_000)
    assert installed.check(quick=True).right
    installed.blob.write_bytes(installed.right[:-1])
    assert installed.finding(quick=True).code == "wrong-size"
    installed.blob.write_bytes(b"X" + installed.right[1:])
    found = installed.finding(quick=True)
    assert found.code == "not-gguf"
    assert "--repair" in found.hint


@pytest.mark.engines
def test_the_other_merger_is_checked_too(bench: Bench, gguf_split: Path) -> None:
    settings = bench.settings(gguf_split=str(gguf_split))
    done = bench.install(settings=settings, merger=Merger.LLAMA_GGUF_SPLIT)
    installed = Installed(bench, done.digest, b"", bench.plan().layout)  # type: ignore[arg-type]
    assert installed.check().right


def test_the_command_for_people(installed: Installed) -> None:
    done = installed.command("verify")
    assert (done.returncode, done.stdout) == (0, f"{NAMES[0]}: right\n{NAMES[1]}: right\n")
    assert "blob 5/5" in done.stderr
    assert "The weights were not read" in installed.command("verify", "--quick").stderr
    installed.spoil(5_000_000)
    done = installed.command("verify", NAMES[0])
    assert done.returncode == 7
    assert done.stdout.startswith(f"{NAMES[0]}: WRONG\n  The file of the weights (")
    assert done.stderr.count("Hint: ") == 1
    repair = shlex.split(done.stderr.split("`")[1])[1:]
    mended = installed.command(*repair)
    assert mended.stdout == f"{NAMES[0]}: repaired, right\n", mended.stderr
    assert "262 kB repaired (262 kB downloaded)" in mended.stderr
    assert installed.command("verify").returncode == 0


def test_the_command_for_scripts(installed: Installed) -> None:
    installed.spoil(5_000_000)
    done = installed.command("verify", "--json")
    assert done.returncode == 7
    events = [json.loads(line) for line in done.stdout.splitlines()]
    last = events[-1]
    assert (last["event"], last["right"], last["quick"]) == ("verified", False, False)
    assert [each["name"] for each in last["models"]] == list(NAMES)
    finding = last["models"][0]["findings"][0]
    assert (finding["code"], finding["blob"]) == ("wrong-digest", installed.digest)
    assert finding["message"]
    assert finding["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prompts"],
        ["--prompts", "a", "b"],
        ["--prompts", "a", "--quick"],
        ["--prompts", "a", "--repair"],
        ["--prompts", "a", "--store", "x"],
        ["--quick", "--repair"],
        ["--model", "v3.1"],
        ["nothing:here"],
        ["-bad-"],
        ["a//b"],
    ],
)
def test_what_does_not_go_together_is_a_usage_error(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "verify", *arguments],
        env=dict(os.environ) | {"OLLAMA_MODELS": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error" in done.stderr


def test_an_empty_store_has_nothing_wrong(tmp_path: Path) -> None:
    for arguments in ([], ["--json"], ["--repair"]):
        done = subprocess.run(
            [sys.executable, "-m", "dsollama", "verify", *arguments],
            env=dict(os.environ) | {"OLLAMA_MODELS": str(tmp_path / "none")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0
    assert not (tmp_path / "none").exists()
