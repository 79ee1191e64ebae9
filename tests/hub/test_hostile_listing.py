"""A repository may list anything: it ends in a sentence or a right install, inside the store."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsollama.errors import DsollamaError
from dsollama.gguf import encode as gg
from dsollama.gguf.header import MAX_ENTRIES, MAX_HEADER_BYTES
from dsollama.install.destination import Installed
from dsollama.sources.hub.bounded import MAX_ANSWER_BYTES
from dsollama.testing.loopback_hub import COMMIT, Fault, Request

from conftest import TERMINUS, Bench

QUANT = "UD-Q2_K_XL"
MEMORY_KB = 256 * 1024
"""What `install --dry-run` may take against the largest answers, in KiB, all in all."""


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, but those of the store.

    Nor huggingface_hub's own list of agents, which it keeps in its cache.
    """
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] != "models"
        and path.name != ".agent_harnesses.json"
    }


@pytest.fixture
def outside(bench: Bench, tmp_path: Path) -> Iterator[None]:
    """The test may write in the store, and nowhere else."""
    before = tree(tmp_path)
    yield
    assert tree(tmp_path) == before
    left = {path.name for path in bench.store.glob("*")}
    assert left <= {".dsollama", "blobs", "manifests"}


def outcome(bench: Bench, target: str = QUANT) -> str:
    """Install; return the error's code, or `installed` after a look at the store."""
    try:
        done = bench.install(target)
    except DsollamaError as error:
        failure = error
    else:
        assert_installed(bench, done)
        return "installed"
    assert bench.files() == {}
    assert failure.code not in {"error", "hub"}
    assert str(failure).isprintable(), str(failure)
    assert len(str(failure)) < 2000
    return failure.code


def assert_installed(bench: Bench, done: Installed) -> None:
    names = {Path(name).name for name in bench.files() if name.startswith("manifests/")}
    assert names == {name.rsplit(":", 1)[-1] for name in done.names}
    blob = bench.store / "blobs" / done.digest.replace(":", "-")
    assert done.digest == f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"


def listing(bench: Bench, siblings: Any, **changes: Any) -> None:
    """Let the Hub answer with these files."""
    body = {"id": TERMINUS, "modelId": TERMINUS, "sha": COMMIT, "siblings": siblings, **changes}
    answer(bench, json.dumps(body).encode())


def answer(bench: Bench, body: bytes, **headers: str) -> None:
    def fault(request: Request) -> Fault | None:
        if request.path.startswith("/api/models/"):
            return Fault(status=200, body=body, headers=headers)
        return None

    bench.hub.fault = fault


def entry(name: Any, size: Any = 10, sha256: Any = "0" * 64) -> dict[str, Any]:
    return {
        "rfilename": name, "size": size, "blobId": "0" * 40,
        "lfs": {"sha256": sha256, "size": size, "pointerSize": 135},
    }  # fmt: skip


def shards(bench: Bench, **changes: Any) -> list[dict[str, Any]]:
    return [
        entry(name, changes.get("size", file.size), changes.get("sha256", file.sha256))
        for name, file in bench.repository.files.items()
    ]


FOLDERS = {
    "parent": ("../../", "no-gguf"),
    "parent inside": ("a/../../../", "no-gguf"),
    "absolute": ("/tmp/", "no-gguf"),
    "empty part": ("a//", "no-gguf"),
    "NUL": ("a\0b/", "no-gguf"),
    "newline": ("a\nError: b\n/", "no-gguf"),
    "escape": ("\x1b[2J\x1b]0;title\x07/", "no-gguf"),
    "C1 escape": ("\x9b2J/", "no-gguf"),
    "turned text": ("\u202egfedcba/", "no-gguf"),
    "half a letter": ("\ud800/", "no-gguf"),
    "long": ("a" * 2000 + "/", "no-gguf"),
    "backslashes": ("..\\..\\", "installed"),
    "a drive": ("C:\\", "installed"),
    "a query": ("a?b=c&d#e/", "installed"),
    "percent": ("%2e%2e%2f/", "installed"),
    "markup": ("[bold]a[/red]/", "installed"),
    "not ASCII": ("模型 ü/", "installed"),
}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", FOLDERS)
def test_no_file_name_leaves_the_store(bench: Bench, case: str) -> None:
    folder, expected = FOLDERS[case]
    files = bench.repository.files
    bench.repository.files = {folder + Path(name).name: files[name] for name in files}
    assert outcome(bench) == expected


def first(bench: Bench, **changes: Any) -> list[dict[str, Any]]:
    """The right listing with the first file changed."""
    files = shards(bench)
    return [{**files[0], **changes}, *files[1:]]


def lfs(bench: Bench, **changes: Any) -> list[dict[str, Any]]:
    return first(bench, lfs={**shards(bench)[0]["lfs"], **changes})


def renamed(bench: Bench, old: str, new: str) -> list[dict[str, Any]]:
    return [{**each, "rfilename": each["rfilename"].replace(old, new)} for each in shards(bench)]


def set_of(count: int, bench: Bench) -> list[dict[str, Any]]:
    """As many names as a set claims, all of the first file."""
    return [
        {**shards(bench)[0], "rfilename": f"m-{QUANT}-{number:05d}-of-{count:05d}.gguf"}
        for number in range(1, count + 1)
    ]


Make = Callable[[Bench], Any]
LISTINGS: dict[str, tuple[Make, str]] = {
    "as it is": (shards, "installed"),
    "unknown fields": (lambda b: first(b, extra=[{}]), "installed"),
    "no list": (lambda _b: 5, "transfer-failed"),
    "a text": (lambda _b: "x", "transfer-failed"),
    "nothing": (lambda _b: None, "no-gguf"),
    "a number as file": (lambda _b: [5], "transfer-failed"),
    "no name": (lambda _b: [{"size": 1}], "transfer-failed"),
    "a number as name": (lambda b: first(b, rfilename=5), "transfer-failed"),
    "no name at all": (lambda b: first(b, rfilename=None), "transfer-failed"),
    "an empty name": (lambda b: first(b, rfilename=""), "missing-shard"),
    "smaller than it is": (lambda b: lfs(b, size=1_000_000), "transfer-failed"),
    "a byte smaller": (lambda b: lfs(b, size=shards(b)[0]["size"] - 1), "transfer-failed"),
    "larger than it is": (lambda b: lfs(b, size=2**40), "transfer-failed"),
    "as large as can be": (lambda b: lfs(b, size=2**63 - 1), "transfer-failed"),
    "larger than can be": (lambda b: lfs(b, size=2**63), "transfer-failed"),
    "very large": (lambda b: lfs(b, size=10**300), "transfer-failed"),
    "empty": (lambda b: lfs(b, size=0), "not-gguf"),
    "negative": (lambda b: lfs(b, size=-1), "transfer-failed"),
    "part of a byte": (lambda b: lfs(b, size=1.5), "transfer-failed"),
    "a size that is text": (lambda b: lfs(b, size="10"), "transfer-failed"),
    "a size that is true": (lambda b: lfs(b, size=True), "transfer-failed"),
    "not a number": (lambda b: lfs(b, size=float("nan")), "transfer-failed"),
    "no size": (lambda b: first(b, lfs=None, size=None), "missing-shard"),
    "lfs without a size": (lambda b: first(b, lfs={"sha256": "0" * 64}), "transfer-failed"),
    "lfs of a text": (lambda b: first(b, lfs="x"), "transfer-failed"),
    "another digest": (lambda b: lfs(b, sha256="0" * 64), "corrupt-shard"),
    "a short digest": (lambda b: lfs(b, sha256="0" * 63), "transfer-failed"),
    "a digest and a newline": (lambda b: lfs(b, sha256="0" * 64 + "\n"), "transfer-failed"),
    "a digest in capitals": (lambda b: lfs(b, sha256="A" * 64), "transfer-failed"),
    "a path as digest": (lambda b: lfs(b, sha256="../" * 21 + "x"), "transfer-failed"),
    "a number as digest": (lambda b: lfs(b, sha256=5), "transfer-failed"),
    "a file twice": (lambda b: shards(b) + shards(b)[:1], "installed"),
    "a file twice, once another": (lambda b: shards(b) + lfs(b, size=5), "transfer-failed"),
    "case twins": (
        lambda b: shards(b) + renamed(b, "DeepSeek", "deepseek"), "ambiguous-quant",
    ),
    "a shard 0": (lambda b: [*shards(b), *renamed(b, "00001-of", "00000-of")], "missing-shard"),
    "a shard 4": (lambda b: [*shards(b), *renamed(b, "00001-of", "00004-of")], "missing-shard"),
    "all shards 0": (lambda b: renamed(b, "-of-00003", "-of-00000"), "unknown-quant"),
    "more digits": (lambda b: renamed(b, "-of-00003", "-of-000003"), "unknown-quant"),
    "Arabic digits": (lambda b: renamed(b, "-of-00003", "-of-٠٠٠٠٣"), "unknown-quant"),
    "one of 99999": (lambda b: renamed(b, "-of-00003", "-of-99999"), "missing-shard"),
    "the same file for all": (lambda b: set_of(3, b), "transfer-failed"),
    "5000 shards": (lambda b: set_of(5000, b), "malformed-gguf"),
    "20000 shards": (lambda b: set_of(20_000, b), "malformed-gguf"),
    "a capital suffix": (lambda b: renamed(b, ".gguf", ".GGUF"), "unknown-quant"),
    "only a suffix": (lambda b: [entry(".gguf")], "unknown-quant"),
}  # fmt: skip


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", LISTINGS)
def test_a_listing_ends_in_a_sentence_or_a_right_install(bench: Bench, case: str) -> None:
    make, expected = LISTINGS[case]
    listing(bench, make(bench))
    assert outcome(bench) == expected


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "empty": (b"", {}),
    "a page": (b"<!doctype html><html>Please log in", {}),
    "a list": (b"[]", {}),
    "null": (b"null", {}),
    "no text": (b"\xff\xfe\xff", {}),
    "deep": (b"[" * 1_000_000, {}),
    "deep and closed": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {}),
    "a long number": (b'{"id": "x", "sha": ' + b"9" * 5000 + b"}", {}),
    "no id": (b'{"sha": "' + COMMIT.encode() + b'"}', {}),
    "no commit": (b'{"id": "x"}', {}),
    "a commit that is a path": (b'{"id": "x", "sha": "../../../../../../../../../../../x/"}', {}),
    "a commit and a newline": (b'{"id": "x", "sha": "' + COMMIT.encode() + b'\\n"}', {}),
    "a number as commit": (b'{"id": "x", "sha": 5}', {}),
    "a wrong date": (b'{"id": "x", "lastModified": "\\u001b[2J"}', {}),
}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", BODIES)
def test_what_is_no_listing_is_said(bench: Bench, case: str) -> None:
    body, headers = BODIES[case]
    answer(bench, body, **headers)
    assert outcome(bench) == "transfer-failed"


MEASURED = """
import sys
from dsollama.cli.app import main
try:
    main()
finally:
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def measured(bench: Bench, *arguments: str) -> tuple[int, str, int, float]:
    """Run `dsollama install`; return exit code, output, KiB at most, the processor's seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "install", *arguments],
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,  # a guard: processor time says nothing of one that only waits
        check=False,
    )
    output, memory = done.stdout.rstrip().rsplit("\n", 1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{arguments}: {int(memory) // 1024} MiB, {seconds:.1f} s")
    return done.returncode, output, int(memory), seconds


@pytest.mark.usefixtures("outside")
def test_a_listing_of_25000_files_is_read_in_bounded_memory(bench: Bench) -> None:
    listing(bench, shards(bench) + [entry(f"Q4_0/other-{n:06d}.gguf") for n in range(25_000)])
    code, output, memory, seconds = measured(bench, QUANT, "--dry-run")
    assert code == 0, output
    assert memory < MEMORY_KB, memory
    assert seconds < 30


@pytest.mark.usefixtures("outside")
def test_the_choices_of_a_large_listing_are_few(bench: Bench) -> None:
    listing(bench, [entry(f"other-{n:06d}-Q4_{n}.gguf") for n in range(25_000)])
    code, output, memory, seconds = measured(bench, "Q9_K", "--dry-run")
    assert code == 2
    assert len(output.splitlines()) < 80
    assert memory < MEMORY_KB, memory
    assert seconds < 30


def flood(size: int) -> bytes:
    """So many bytes of the JSON that costs the client most memory a byte."""
    file = b'{"rfilename":""},'
    return b'{"id":"x","siblings":[' + file * (size // len(file)) + b'{"rfilename":""}]}'


ENDLESS = {
    "100000 files": json.dumps(
        {"id": "x", "sha": COMMIT, "siblings": [entry(f"f-{n}.gguf") for n in range(100_000)]}
    ).encode(),
    "200 MB": b'{"id": "' + b"x" * 200_000_000 + b'"}',
    "just too large": b" " * (MAX_ANSWER_BYTES + 1),
}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", ENDLESS)
def test_an_endless_answer_is_given_up(bench: Bench, case: str) -> None:
    answer(bench, ENDLESS[case])
    code, output, memory, seconds = measured(bench, QUANT, "--dry-run")
    assert (code, output.count("Error: ")) == (3, 1), output
    assert f"larger than {MAX_ANSWER_BYTES} bytes" in output
    assert memory < MEMORY_KB, memory
    assert seconds < 30


@pytest.mark.usefixtures("outside")
def test_the_worst_answer_that_is_read_stays_within_memory(bench: Bench) -> None:
    answer(bench, flood(MAX_ANSWER_BYTES - 100))
    code, output, memory, seconds = measured(bench, QUANT, "--dry-run")
    assert (code, output.count("Error: ")) == (3, 1), output
    assert memory < MEMORY_KB, memory
    assert seconds < 30


@pytest.mark.usefixtures("outside")
def test_a_compressed_answer_is_refused(bench: Bench) -> None:
    answer(bench, gzip.compress(b" " * 100_000_000), **{"Content-Encoding": "gzip"})
    code, output, memory, _ = measured(bench, QUANT, "--dry-run")
    assert (code, output.count("Error: ")) == (3, 1), output
    assert "compresses" in output
    assert memory < MEMORY_KB, memory


def test_no_answer_is_asked_for_compressed(bench: Bench) -> None:
    bench.plan()
    asked = [each.headers["Accept-Encoding"] for each in bench.hub.requests]
    assert asked == ["identity"] * len(asked)
    assert any(each.path.startswith("/api/models/") for each in bench.hub.requests)


def test_an_answer_that_takes_too_long_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsollama.settings.Patience.answer", 0.1)
    bench.hub.fault = lambda _request: time.sleep(0.5)
    with pytest.raises(DsollamaError, match="takes longer than"):
        bench.plan()


def entries_of_text() -> bytes:
    return header(gg.encode_string("a") + b"\x08\0\0\0" + (300_000_000).to_bytes(8, "little"))


def entries_of_texts() -> bytes:
    count = (30_000_000).to_bytes(8, "little")
    return header(gg.encode_string("a") + b"\x09\0\0\0\x08\0\0\0" + count)


def as_many_texts_as_are_read() -> bytes:
    count = (MAX_HEADER_BYTES - 100) // 8
    return header(gg.encode_string("a") + b"\x09\0\0\0\x08\0\0\0" + count.to_bytes(8, "little"))


def as_many_tensors_as_are_read() -> bytes:
    infos = [gg.encode_tensor_info(b"%x" % number, [0], 0, 0) for number in range(MAX_ENTRIES)]
    return header(b"", b"".join(infos), len(infos))


def header(entry: bytes, infos: bytes = b"", count: int = 0) -> bytes:
    head = gg.MAGIC + struct.pack("<IQQ", gg.VERSION, count, int(bool(entry)))
    return head + entry + infos


@pytest.mark.parametrize(
    "make",
    [entries_of_text, entries_of_texts, as_many_texts_as_are_read, as_many_tensors_as_are_read],
)
def test_a_header_of_hundreds_of_megabytes_is_refused(
    bench: Bench, make: Callable[[], bytes]
) -> None:
    """The file is that large, so that only the bound on headers protects."""
    path, size = bench.shards[0], 400_000_000
    path.write_bytes(make())
    os.truncate(path, size)
    name = f"UD-Q2_K_XL/{path.name}"
    bench.repository.files[name] = replace(bench.repository.files[name], size=size)
    code, output, memory, seconds = measured(bench, QUANT, "--dry-run")
    assert (code, output.count("Error: ")) == (4, 1), output
    assert memory < MEMORY_KB, memory
    assert seconds < 60
