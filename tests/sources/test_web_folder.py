"""`--from-url`: a plain folder of a web server with SHA256SUMS, as people keep mirrors."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsollama.errors import (
    DsollamaError,
    NoGgufError,
    RepositoryNotFoundError,
    TransferError,
    UsageError,
)
from dsollama.settings import Settings
from dsollama.sources.registry import source_named, source_typed
from dsollama.sources.web_folder import WebFolder

from conftest import Bench


@dataclass
class Folder:
    """Files that a web server gives, by path; with ranges, as nginx does."""

    files: dict[str, bytes]
    ranges: bool = True
    url: str = ""
    headers: list[Mapping[str, str]] = field(default_factory=list)


class _Handler(http.server.BaseHTTPRequestHandler):
    folder: Folder

    def do_GET(self) -> None:
        self.folder.headers.append(dict(self.headers))
        data = self.folder.files.get(self.path.removeprefix("/models/"))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if data is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if asked and self.folder.ranges:
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            data = data[start:end]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def folder(bench: Bench) -> Iterator[Folder]:
    """The shards of the bench in a folder of a web server; the bench's Hub stays unasked."""
    found = Folder({path.name: path.read_bytes() for path in bench.shards})
    found.files["SHA256SUMS"] = sums(found.files)
    handler = type("Handler", (_Handler,), {"folder": found})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}/models"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def sums(files: Mapping[str, bytes]) -> bytes:
    """What `sha256sum *` prints."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return "".join(lines).encode()


def test_the_same_model_comes_from_a_web_folder(bench: Bench, folder: Folder) -> None:
    done = bench.install(from_url=folder.url + "/")
    assert done.unchecked == ()
    assert bench.hub.requests == []
    of_folder = bench.files()
    bench.store = bench.store.with_name("other")
    assert bench.install().digest == done.digest
    assert {name.rsplit("/", 1)[-1] for name in bench.files()} == {
        name.rsplit("/", 1)[-1] for name in of_folder
    }


def test_no_token_goes_there(bench: Bench, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bench.install(from_url=folder.url)
    assert folder.headers
    assert not any("Authorization" in each for each in folder.headers)


def test_the_ledger_knows_the_folder(bench: Bench, folder: Folder) -> None:
    done = bench.install(from_url=folder.url)
    (path,) = (bench.store / ".dsollama" / "ledger").iterdir()
    entry = json.loads(path.read_bytes())
    assert entry["endpoint"] == f"folder+{folder.url}"
    assert path.stem == done.digest.removeprefix("sha256:")
    again = bench.install(from_url=folder.url)
    assert (again.digest, again.moved) == (done.digest, 0)


def test_the_hub_takes_over_what_a_folder_gave(bench: Bench, folder: Folder) -> None:
    """The digests are the same, so nothing has to be moved."""
    done = bench.install(from_url=folder.url)
    assert bench.install().moved == 0
    assert bench.plan().state.installed == done.digest


def test_a_repair_asks_the_folder(bench: Bench, folder: Folder) -> None:
    done = bench.install(from_url=folder.url)
    blob = bench.store / "blobs" / done.digest.replace(":", "-")
    with blob.open("r+b") as file:
        file.seek(-3000, 2)
        file.write(b"damaged")
    asked = len(folder.headers)
    found = subprocess.run(
        [sys.executable, "-m", "dsollama", "verify", "--repair", "--store", str(bench.store)],
        env=bench.environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == done.digest.removeprefix("sha256:")
    assert len(folder.headers) > asked
    assert bench.hub.requests == []


def test_a_stopped_install_goes_on_from_the_folder(bench: Bench, folder: Folder) -> None:
    shard = bench.shards[1].name
    good, folder.files[shard] = folder.files[shard], b"\xff" * len(folder.files[shard])
    head = 200_000
    folder.files[shard] = good[:head] + folder.files[shard][head:]
    with pytest.raises(DsollamaError, match="has the digest"):
        bench.install(from_url=folder.url)
    folder.files[shard] = good
    plan = bench.plan("", resume=True)
    assert plan.source == WebFolder(folder.url)
    assert 0 < plan.to_move < plan.size
    assert bench.files() == {}


def test_a_folder_that_changed_begins_anew(bench: Bench, folder: Folder) -> None:
    """An older state of a folder cannot be had, so what was staged of it counts for nothing."""
    shard = bench.shards[2].name
    good = folder.files[shard]
    folder.files[shard] = good[:200_000] + b"\xff" * (len(good) - 200_000)
    with pytest.raises(DsollamaError, match="has the digest"):
        bench.install(from_url=folder.url)
    files = {name: data for name, data in folder.files.items() if name != "SHA256SUMS"}
    folder.files["SHA256SUMS"] = sums(files)
    plan = bench.plan(from_url=folder.url)
    assert plan.state.resumed == 0
    assert plan.shards[2].sha256 == hashlib.sha256(files[shard]).hexdigest()


def test_the_command_line_takes_a_url(bench: Bench, folder: Folder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", "--from-url", folder.url],
        env=bench.environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"asking {folder.url}" in done.stderr


def _no_sums(folder: Folder) -> None:
    del folder.files["SHA256SUMS"]


def _no_gguf(folder: Folder) -> None:
    folder.files["SHA256SUMS"] = sums({"readme.txt": b""})


def _no_ranges(folder: Folder) -> None:
    folder.ranges = False


def _missing_file(folder: Folder) -> None:
    del folder.files[next(name for name in folder.files if name.endswith(".gguf"))]


def _two_digests(folder: Folder) -> None:
    name = next(name for name in folder.files if name.endswith(".gguf"))
    folder.files["SHA256SUMS"] += b"0" * 64 + b"  " + name.encode() + b"\n"


def _endless(folder: Folder) -> None:
    folder.files["SHA256SUMS"] = b"#" * (2**20 + 1)


def _many(folder: Folder) -> None:
    folder.files["SHA256SUMS"] = sums({f"{number}.gguf": b"" for number in range(513)})


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (_no_sums, RepositoryNotFoundError, "SHA256SUMS"),
        (_no_gguf, NoGgufError, "lists no GGUF file"),
        (_no_ranges, TransferError, "HTTP 200"),
        (_missing_file, RepositoryNotFoundError, "does not give"),
        (_two_digests, TransferError, "two digests"),
        (_endless, TransferError, "larger than"),
        (_many, TransferError, "more than 512"),
    ],
)
def test_a_folder_that_is_none_is_told(
    spoil: Callable[[Folder], None],
    kind: type[DsollamaError],
    words: str,
    bench: Bench,
    folder: Folder,
) -> None:
    spoil(folder)
    with pytest.raises(kind, match=words) as caught:
        bench.install(from_url=folder.url)
    assert caught.value.hint or kind is TransferError
    assert not bench.store.exists()


def test_paths_that_lead_elsewhere_are_not_looked_at(bench: Bench, folder: Folder) -> None:
    folder.files["SHA256SUMS"] += b"".join(
        b"1" * 64 + b"  " + name + b"\n"
        for name in (
            b"../../etc/x.gguf",
            b"/etc/x.gguf",
            b"a/\x1b[2Jx.gguf",
            b"x" * 2000 + b".gguf",
        )
    )
    assert set(source_typed(folder.url).listing("o/r", None).files) == {
        path.name for path in bench.shards
    }


@pytest.mark.parametrize(
    "url", ["models", "ftp://box/x", "http://u:p@box/x", "http://box\\@y/x", ""]
)
def test_what_is_no_address_is_refused(url: str, bench: Bench) -> None:
    with pytest.raises(UsageError, match="--from-url"):
        source_typed(url)


def test_a_revision_or_a_resume_beside_it_is_refused(bench: Bench, folder: Folder) -> None:
    with pytest.raises(UsageError, match="no revisions"):
        bench.plan(from_url=folder.url, revision="main")
    with pytest.raises(UsageError, match="--resume"):
        bench.plan("", from_url=folder.url, resume=True)


def test_offline_no_folder_is_asked(bench: Bench, folder: Folder) -> None:
    settings = Settings(store=bench.store, endpoint=bench.hub.endpoint, offline=True)
    with pytest.raises(DsollamaError, match="HF_HUB_OFFLINE"):
        bench.plan(settings=settings, from_url=folder.url)
    assert folder.headers == []


def test_names_lead_back_to_sources(tmp_path: Path) -> None:
    folder = WebFolder("https://box/models")
    assert source_named(folder.name, trusted="https://huggingface.co") == folder
    assert folder.install_words("0" * 40) == ("", ["--from-url", "https://box/models"])
    hub = source_named("https://huggingface.co", trusted="https://huggingface.co")
    assert hub.install_words("1" * 40) == ("", ["--revision", "1" * 40])
    other = source_named("https://else", trusted="https://huggingface.co")
    assert other.install_words("1" * 40)[0].endswith("HF_ENDPOINT=https://else")
    assert source_named("folder+nonsense", trusted="").keeps_commits
