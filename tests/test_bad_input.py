"""What users meet: one sentence, a hint, a stable exit code, and the store as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsollama.testing.loopback_hub import Fault, HubRepository

from conftest import Bench, make_repository


def run(bench: Bench, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def damaged(bench: Bench, change: Callable[[bytes], bytes], shard: int = 0) -> None:
    """Change a shard's bytes on the Hub; its published digest follows, as after a bad upload."""
    path = bench.shards[shard]
    path.write_bytes(change(path.read_bytes()))
    bench.repository.add(f"UD-Q2_K_XL/{path.name}", path)


def missing_shard(bench: Bench) -> None:
    del bench.repository.files[f"UD-Q2_K_XL/{bench.shards[1].name}"]


def foreign_shard(bench: Bench) -> None:
    bench.shards[2].write_bytes(bench.shards[1].read_bytes())
    bench.repository.add(f"UD-Q2_K_XL/{bench.shards[2].name}", bench.shards[2])


def cut_shard(bench: Bench) -> None:
    damaged(bench, lambda data: data[:-100_000], shard=1)


def no_gguf(bench: Bench) -> None:
    bench.repository.files.clear()


def corrupt_shard(bench: Bench) -> None:
    """The listing's digest is right, the bytes that come are not.

    It is the digest of other bytes than the installed ones: those would be taken instead.
    """
    damaged(bench, lambda data: data[:-5000] + b"x" + data[-4999:], shard=1)
    path = bench.shards[1]
    path.write_bytes(path.read_bytes()[:-5000] + b"y" + path.read_bytes()[-4999:])


def lfs_pointer(bench: Bench) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    damaged(bench, lambda _data: pointer)


def html(bench: Bench) -> None:
    damaged(bench, lambda _data: b"<!DOCTYPE html><html><body>Please log in" + b" " * 200)


def empty_file(bench: Bench) -> None:
    damaged(bench, lambda _data: b"")


def huge_counts(bench: Bench) -> None:
    damaged(bench, lambda data: data[:8] + (1 << 60).to_bytes(8, "little") * 2 + data[24:])


def gated(bench: Bench) -> None:
    bench.repository.gated, bench.repository.token = True, "hf_right"


def private(bench: Bench) -> None:
    bench.repository.token = "hf_right"


def twice(bench: Bench) -> None:
    for path in bench.shards:
        bench.repository.add(f"again/{path.name}", path)


def server_down(bench: Bench) -> None:
    bench.hub.fault = lambda request: Fault(status=500) if request.server == "hub" else None


def fine(_bench: Bench) -> None:
    """Nothing is wrong with the Hub."""


CASES = {
    "unknown model": (fine, ["UD-Q2_K_XL", "--model", "v9"], 2, "no model 'v9'"),
    "unknown quant": (fine, ["Q9_K"], 2, "no quant 'Q9_K'"),
    "neither quant nor address": (fine, ["some/thing"], 2, "neither a quant nor an address"),
    "ambiguous quant": (twice, ["UD-Q2_K_XL"], 2, "2 times"),
    "unknown variant": (fine, ["UD-Q2_K_XL", "--variants", "loud"], 2, "no variant 'loud'"),
    "invalid name": (fine, ["UD-Q2_K_XL", "--name", "../etc"], 2, "not a name that Ollama"),
    "invalid tag": (fine, ["UD-Q2_K_XL", "--name", "a:b c"], 2, "not a name that Ollama"),
    "unknown repository": (fine, ["hf.co/nobody/nothing:Q4_0"], 3, "shows no repository"),
    "unknown revision": (fine, ["UD-Q2_K_XL", "--revision", "v0"], 3, "no such revision"),
    "no GGUF": (no_gguf, ["UD-Q2_K_XL"], 3, "holds no GGUF"),
    "gated": (gated, ["UD-Q2_K_XL"], 3, "is gated"),
    "private": (private, ["UD-Q2_K_XL"], 3, "shows no repository"),
    "Hub answers 500": (server_down, ["UD-Q2_K_XL"], 3, "answered HTTP 500"),
    "missing shard": (missing_shard, ["UD-Q2_K_XL"], 4, "missing: 2"),
    "shard of another place": (foreign_shard, ["UD-Q2_K_XL"], 4, "calls itself number 2"),
    "truncated shard": (cut_shard, ["UD-Q2_K_XL"], 4, "cut off"),
    "corrupt shard": (corrupt_shard, ["UD-Q2_K_XL"], 4, "has the digest"),
    "LFS pointer": (lfs_pointer, ["UD-Q2_K_XL"], 4, "Git LFS pointer"),
    "HTML": (html, ["UD-Q2_K_XL"], 4, "web page"),
    "empty file": (empty_file, ["UD-Q2_K_XL"], 4, "empty"),
    "hostile header": (huge_counts, ["UD-Q2_K_XL"], 4, "claims"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_bad_input_is_one_sentence_a_hint_and_an_exit_code(case: str, bench: Bench) -> None:
    spoil, arguments, exit_code, sentence = CASES[case]
    bench.install()  # something to lose
    before = bench.files()
    for ledger in (bench.store / ".dsollama" / "ledger").iterdir():
        ledger.unlink()  # so that the damaged one is not taken for the installed one
    spoil(bench)
    done = run(bench, "install", *arguments)
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "\nHint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert bench.files() == before


def test_an_unknown_quant_lists_the_choices_with_sizes(bench: Bench, single: Path) -> None:
    bench.repository.add(single.name, single)
    bench.repository.add("DeepSeek-V3.1-Terminus-Q4_0.gguf", single)  # of the very same size
    done = run(bench, "install", "Q2_K_L")
    assert "Did you mean UD-Q2_K_XL?" in done.stderr
    assert "UD-TQ1_0       11.6 MB" in done.stderr
    assert "Q4_0           11.6 MB" in done.stderr
    assert "UD-Q2_K_XL     11.6 MB" in done.stderr


def test_an_unreachable_hub_is_said_and_bounded_in_time(bench: Bench) -> None:
    began = time.monotonic()
    done = run(bench, "install", "UD-Q2_K_XL", HF_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert time.monotonic() - began < 30


def test_offline_is_honoured(bench: Bench) -> None:
    done = run(bench, "install", "UD-Q2_K_XL", HF_HUB_OFFLINE="1")
    assert (done.returncode, bench.hub.requests) == (3, [])
    assert "HF_HUB_OFFLINE" in done.stderr


def test_a_disk_too_small_is_said_before_the_first_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mock stands in for a full disk; the next test has a real one where it may mount.
    from dsollama.errors import NotEnoughDiskError
    from dsollama.install.to_store import execute
    from dsollama.store.store import Store

    plan = bench.plan()
    sent = bench.hub.bytes_sent
    monkeypatch.setattr(Store, "free_bytes", lambda _self: plan.size - 1)
    with pytest.raises(NotEnoughDiskError, match=r"needs .* and .* has"):
        execute(plan, bench.events.append, connections=1)
    assert bench.hub.bytes_sent == sent
    assert not bench.store.exists()


def test_a_real_small_disk_refuses_before_the_first_byte(bench: Bench) -> None:
    bench.store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "mode=755,size=4m", "tmpfs", str(bench.store)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small tmpfs here")
    try:
        done = run(bench, "install", "UD-Q2_K_XL")
        left = list(bench.store.iterdir())
    finally:
        subprocess.run(["umount", str(bench.store)], check=True)
    assert (done.returncode, left) == (5, [])
    assert "4.2 MB free" in done.stderr


def test_a_store_that_is_read_only_is_said(bench: Bench) -> None:
    bench.store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=755,size=64m", "tmpfs", str(bench.store)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a read-only tmpfs here")
    try:
        done = run(bench, "install", "UD-Q2_K_XL")
    finally:
        subprocess.run(["umount", str(bench.store)], check=True)
    assert done.returncode == 5
    assert "cannot be written" in done.stderr


def test_a_store_that_is_a_file_is_said(bench: Bench) -> None:
    bench.store.write_text("mine")
    done = run(bench, "install", "UD-Q2_K_XL")
    assert done.returncode == 5
    assert bench.store.read_text() == "mine"


def test_a_missing_merger_is_said_before_the_hub_is_asked(bench: Bench) -> None:
    done = run(
        bench, "install", "UD-Q2_K_XL", "--merger", "llama-gguf-split", LLAMA_GGUF_SPLIT="/nowhere"
    )
    assert (done.returncode, bench.hub.requests) == (6, [])
    assert "/nowhere was not found" in done.stderr


def test_errors_are_json_lines_with_json(bench: Bench) -> None:
    import json

    done = run(bench, "install", "Q9_K", "--json")
    error = json.loads(done.stdout.splitlines()[-1])
    assert (error["event"], error["code"], error["exit"]) == ("error", "unknown-quant", 2)


def test_chat_says_when_no_ollama_answers(bench: Bench) -> None:
    done = run(bench, "chat", "deepseek-v3.1", "Hello")
    assert done.returncode == 6
    assert "No Ollama answers at http://127.0.0.1:1" in done.stderr
    assert "ollama serve" in done.stderr


def test_a_killed_install_goes_on_where_it_was(bench: Bench) -> None:
    """SIGTERM, as systemd sends it, is the same as Ctrl-C."""
    bench.hub.fault = lambda request: (
        Fault(stall_after=1_000_000)
        if request.server == "cdn" and request.path.count("00002-of") else None
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL"],
        env=bench.environment() | {"DSOLLAMA_CONNECTIONS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("shard 1/3 verified"):
            break
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "are kept" in errors
    bench.hub.fault = lambda _request: None
    assert bench.files() == {}
    done = run(bench, "install", "UD-Q2_K_XL", "--json")
    assert done.returncode == 0, done.stderr
    assert '"event": "installed"' in done.stdout


def test_a_folder_per_quant_and_a_root_file_are_both_found(bench: Bench, single: Path) -> None:
    repository = make_repository(bench.shards)
    repository.add(single.name, single)
    assert isinstance(repository, HubRepository)
    bench.hub.repositories["unsloth/DeepSeek-V3.1-GGUF"] = repository
    for quant, size in (("q2_k_xl", 3), ("TQ1_0", 1)):
        done = run(bench, "install", quant, "--model", "v3.1", "--dry-run")
        assert f"{size} file(s)" in done.stdout


@pytest.mark.parametrize("letter", ["\n", "\u3000", "\x1b"])
def test_a_store_that_no_modelfile_can_name_is_said_before_the_download(
    bench: Bench, letter: str
) -> None:
    store = bench.store.with_name(f'models{letter}"""\n')
    done = run(bench, "install", "UD-Q2_K_XL", "--store", str(store))
    assert (done.returncode, done.stderr.count("Error: ")) == (2, 1)
    assert "\x1b" not in done.stderr
    assert not store.exists()
    assert bench.hub.bytes_sent < 4 * 2**20  # the headers
