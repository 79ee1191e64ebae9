"""Installing through the API of a real Ollama 0.33.0, whose answers are known.

Such a server is on this machine, of course. `elsewhere` says that it is not, so that the road to
another machine is taken: nothing else differs. `Fake` stands only for what a real server cannot be
made to say at will: an upload that breaks in the middle, a full disk, an old version, answers that
are none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from dsollama.errors import (
    DsollamaError,
    InterruptedByUserError,
    NotEnoughDiskError,
    OllamaRefusedError,
    OllamaTooOldError,
    OllamaUnreachableError,
    StoreNotWritableError,
    UsageError,
)
from dsollama.events import BytesMoved, Event, Noted, StepStarted
from dsollama.install import server_register
from dsollama.install.choose_destination import choose_destination, staging_root
from dsollama.install.destination import Installed
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest, Via
from dsollama.install.to_api import ToApi
from dsollama.install.to_store import ToStore
from dsollama.ollama import handover
from dsollama.ollama.address import is_this_machine, server_address
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.ollama.upload import Blobs
from dsollama.prompts.verify import verify_prompts
from dsollama.settings import Settings
from dsollama.testing.tiny_model import ANSWER_TEXT, THOUGHT_TEXT

from conftest import Bench

ASK = [{"role": "user", "content": "Hello!"}]
PLAIN = "deepseek-v3.1-terminus:UD-Q2_K_XL"
NAMES = (PLAIN, PLAIN + "-thinking")


@dataclass
class Remote:
    """A private Ollama with an empty store, and what is installed into it through its API."""

    address: str
    store: Path
    environment: dict[str, str]
    log: Path
    staging: Path
    events: list[Event] = field(default_factory=list)

    def install(
        self, bench: Bench, listener: Callable[[Event], None] | None = None, **changes: object
    ) -> Installed:
        settings = Settings(store=self.staging, endpoint=bench.hub.endpoint)
        request = InstallRequest("UD-Q2_K_XL", settings, **changes)  # type: ignore[arg-type]
        self.events.clear()
        hear = listener or self.events.append
        there = ToApi(self.address, self.staging)
        return there.install(make_plan(request, hear, there), hear, 4)

    def blobs(self) -> list[Path]:
        """The large ones."""
        return [p for p in (self.store / "blobs").iterdir() if p.stat().st_size > 10**6]

    def files(self) -> dict[str, bytes]:
        """Every file of the server's store."""
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for path in sorted(self.store.rglob("*"))
            if path.is_file()
        }

    def notes(self) -> list[str]:
        return [each.text for each in self.events if isinstance(each, Noted)]

    def uploads(self) -> int:
        return self.log.read_text().count('POST     "/api/blobs/')

    def uploads_of_weights(self) -> int:
        """Every blob is sent once: the weights, and here config, params and two templates."""
        posts = re.findall(r'POST +"/api/blobs/(sha256:\w+)"', self.log.read_text())
        return max(Counter(posts).values())

    def say(self, name: str, **options: object) -> dict[str, Any]:
        body = {"model": name, "messages": ASK, "stream": False, **options}
        answer = requests.post(f"{self.address}/api/chat", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        message: dict[str, Any] = answer.json()["message"]
        return message


@pytest.fixture
def remote(ollama_program: Path, tmp_path: Path) -> Iterator[Remote]:
    folder = tmp_path / "remote"
    (folder / "home").mkdir(parents=True)
    store = folder / "models"
    environment = private_environment(folder / "home", store, free_port(), os.environ)
    log = folder / "ollama.log"
    with private_ollama(ollama_program, environment, log) as address:
        yield Remote(address, store, environment, log, tmp_path / "staging")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_register, "is_this_machine", lambda _address: False)


@pytest.fixture(params=["here", "elsewhere"])
def anywhere(request: pytest.FixtureRequest) -> str:
    """Both roads."""
    if request.param == "elsewhere":
        request.getfixturevalue("elsewhere")
    return str(request.param)


def must_behave(remote: Remote) -> None:
    """Both names must answer as those of a store do, and get DeepSeek's prompts."""
    plain, thinking = (remote.say(name) for name in NAMES)
    assert (plain["content"], plain.get("thinking", "")) == (ANSWER_TEXT, "")
    assert (thinking["content"], thinking["thinking"]) == (ANSWER_TEXT, THOUGHT_TEXT)
    told_not_to = remote.say(NAMES[1], think=False)
    assert (told_not_to["content"], told_not_to.get("thinking", "")) == (ANSWER_TEXT, "")
    for name in NAMES:
        report = verify_prompts(name, remote.address, None)
        assert len(report.checks) > 10
        assert not report.wrong, report.reason
    shown = requests.post(f"{remote.address}/api/show", json={"model": PLAIN}, timeout=10).json()
    assert dict(line.split() for line in shown["parameters"].splitlines())["top_p"] == "0.95"
    assert Blobs(remote.address).names() in (list(NAMES), list(reversed(NAMES)))


def merged(remote: Remote) -> list[Path]:
    blobs = remote.staging / "blobs"
    return list(blobs.iterdir()) if blobs.is_dir() else []


def ours(
    remote: Remote, bench: Bench, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | {"OLLAMA_HOST": remote.environment["OLLAMA_HOST"]} | more,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.engines
def test_the_names_behave_as_those_of_a_store(remote: Remote, bench: Bench) -> None:
    staging = ["--via", "api", "--staging", str(remote.staging)]
    done = ours(remote, bench, "install", "UD-Q2_K_XL", *staging)
    assert (done.returncode, done.stdout.split()) == (0, list(NAMES)), done.stderr
    assert "via api: --via api" in done.stderr
    assert not bench.store.exists()
    must_behave(remote)
    assert merged(remote) == []
    # Byte for byte what an install into a store writes.
    done = ours(remote, bench, "install", "UD-Q2_K_XL", "--via", "store")
    assert done.returncode == 0, done.stderr
    assert remote.files() == bench.files()


@pytest.mark.engines
def test_the_names_on_another_machine_behave_alike(
    remote: Remote, bench: Bench, elsewhere: None
) -> None:
    remote.install(bench)
    must_behave(remote)
    assert "Ollama: verifying conversion" in remote.notes()
    # One copy of the weights on the server, for both names, and none here.
    assert len(remote.blobs()) == 1
    assert merged(remote) == []


@pytest.mark.engines
def test_a_server_that_cannot_reach_us_makes_a_copy(
    remote: Remote, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in a container, whose loopback is another: nobody listens where it asks."""
    real = handover._registry

    @contextmanager
    def unreachable(manifests: tuple[bytes, ...]) -> Iterator[str]:
        with real(manifests):
            yield f"127.0.0.1:{free_port()}"

    monkeypatch.setattr(handover, "_registry", unreachable)
    remote.install(bench)
    assert any("makes a copy of it" in each for each in remote.notes())
    must_behave(remote)
    assert len(remote.blobs()) == 1


@pytest.mark.engines
def test_names_that_a_killed_handover_left_are_swept(remote: Remote, bench: Bench) -> None:
    remote.install(bench)
    server = Blobs(remote.address)
    left = f"127.0.0.1:{free_port()}/dsollama-handover/manifest:0"
    server.copy(PLAIN, left)
    server.copy(PLAIN, "127.0.0.1:1/somebody/manifest:0")
    handover.hand_over(server, {})
    assert set(server.names()) == {*NAMES, "127.0.0.1:1/somebody/manifest:0"}


@pytest.mark.engines
def test_a_second_install_moves_nothing(remote: Remote, bench: Bench, anywhere: str) -> None:
    first = remote.install(bench, variants=("plain",))
    assert first.moved > 10**6
    sent, uploads = bench.hub.bytes_sent, remote.uploads()
    again = remote.install(bench)
    assert (again.moved, again.digest, again.names) == (0, first.digest, NAMES)
    assert bench.hub.bytes_sent - sent < first.moved / 2
    assert remote.uploads() == uploads
    assert remote.uploads_of_weights() == 1
    assert remote.say(NAMES[1])["thinking"] == THOUGHT_TEXT
    assert len(remote.blobs()) == 1


@pytest.mark.engines
def test_gc_leaves_the_merged_file_alone_while_it_is_uploaded(remote: Remote, bench: Bench) -> None:
    """From its staging folder, in which no manifest names it; afterwards it is gone."""
    swept: list[subprocess.CompletedProcess[str]] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "upload":
            gc = ("gc", "--delete", "--all", "--yes", "--store", str(remote.staging))
            swept.append(ours(remote, bench, *gc))
            assert len(merged(remote)) == 1

    done = remote.install(bench, listen)
    (gc,) = swept
    assert gc.returncode == 0, gc.stderr
    assert remote.say(done.names[0])["content"] == ANSWER_TEXT
    assert merged(remote) == []


@pytest.mark.engines
def test_a_merged_file_that_waits_for_its_upload_goes_only_by_all(
    remote: Remote, bench: Bench
) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "upload":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError):
        remote.install(bench, listen)
    gc = ("gc", "--delete", "--yes", "--store", str(remote.staging))
    assert ours(remote, bench, *gc).returncode == 0
    assert len(merged(remote)) == 1
    assert ours(remote, bench, *gc, "--all").returncode == 0
    assert merged(remote) == []


@pytest.mark.engines
def test_what_was_removed_there_is_installed_anew(
    remote: Remote, bench: Bench, anywhere: str
) -> None:
    remote.install(bench)
    for name in NAMES:
        Blobs(remote.address).delete(name)
    assert remote.blobs() == []
    assert remote.install(bench).moved > 10**6
    assert remote.say(NAMES[0])["content"] == ANSWER_TEXT


@pytest.mark.engines
def test_a_stopped_upload_begins_again_and_nothing_is_downloaded(
    remote: Remote, bench: Bench, anywhere: str
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, BytesMoved) and event.step == "upload":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError) as caught:
        remote.install(bench, stop)
    assert "downloaded is kept" in caught.value.hint
    assert len(merged(remote)) == 1
    done = remote.install(bench)
    assert done.moved == 0
    assert any(isinstance(each, BytesMoved) and each.step == "upload" for each in remote.events)
    assert merged(remote) == []
    assert remote.say(NAMES[0])["content"] == ANSWER_TEXT


@pytest.mark.engines
def test_an_upload_that_arrived_is_not_made_again(
    remote: Remote, bench: Bench, anywhere: str
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "register":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError):
        remote.install(bench, stop)
    assert len(remote.blobs()) == 1
    remote.install(bench)
    assert not any(isinstance(each, BytesMoved) and each.step == "upload" for each in remote.events)
    assert remote.uploads_of_weights() == 1
    assert len(remote.blobs()) == 1


@pytest.mark.engines
def test_weights_that_another_model_names_stay_on_the_server(
    remote: Remote, bench: Bench, elsewhere: None
) -> None:
    """The uploaded file may be that of a model which dsollama put into the server's own store."""
    settings = Settings(store=remote.store, endpoint=bench.hub.endpoint)
    stored = bench.install(settings=settings, name="theirs:v1", variants=("plain",))
    remote.install(bench)
    assert remote.uploads() == 0
    assert {path.name for path in remote.blobs()} > {stored.digest.replace(":", "-")}
    assert remote.say("theirs:v1")["content"] == ANSWER_TEXT


@pytest.mark.engines
def test_the_dry_run_says_the_way_the_reason_and_the_cost(
    remote: Remote, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["install", "q2_k_xl", "--dry-run", "--via", "api"]
    cache = {"XDG_CACHE_HOME": str(remote.staging)}
    shown = json.loads(ours(remote, bench, *arguments, "--json", **cache).stdout)
    assert (shown["via"], shown["server"]) == ("api", remote.address)
    assert shown["store"] == str(remote.staging / "dsollama")
    assert not any("copies the model" in note for note in shown["notes"])
    text = ours(remote, bench, *arguments, **cache).stdout
    assert "via         api: --via api" in text
    settings = Settings(store=remote.staging, endpoint=bench.hub.endpoint)
    monkeypatch.setattr(server_register, "is_this_machine", lambda _address: False)
    there = ToApi(remote.address, remote.staging)
    plan = make_plan(InstallRequest("q2_k_xl", settings), bench.events.append, there)
    assert "up to 3 x" in plan.notes[-1]
    assert not remote.staging.exists()


@pytest.mark.engines
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_store_that_is_another_users_goes_by_the_api_where_one_answers(
    remote: Remote, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir(mode=0o755)
    settings = Settings(store=tmp_path / "theirs", ollama_host=remote.address)
    nobody_answers = Settings(store=tmp_path / "theirs", ollama_host="127.0.0.1:1")

    def choose() -> None:
        way = choose_destination(Via.AUTO, settings, tmp_path)
        assert way.via is Via.API
        assert "cannot be written" in way.reason
        with pytest.raises(StoreNotWritableError) as caught:
            choose_destination(Via.STORE, settings, tmp_path)
        assert f"Or hand it to the Ollama at {remote.address}: --via api" in caught.value.hint
        with pytest.raises(StoreNotWritableError) as caught:
            choose_destination(Via.AUTO, nobody_answers, tmp_path)
        assert "--via api" not in caught.value.hint

    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            choose()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert choose_destination(Via.AUTO, settings, tmp_path).via is Via.STORE


def test_a_staging_folder_that_cannot_be_used_is_told_as_one(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(store=tmp_path / "models", endpoint=bench.hub.endpoint)
    plan = make_plan(InstallRequest("UD-Q2_K_XL", settings), bench.events.append)
    with Fake(lambda *_: (200, b'{"version":"0.33.0"}')) as fake:
        refused = replace(plan, store=tmp_path / "file")
        with pytest.raises(StoreNotWritableError) as caught:
            ToApi(fake.address, refused.store).install(refused, bench.events.append, 2)
    assert "give --staging another folder" in caught.value.hint


def test_auto_takes_the_store_of_this_machine_and_the_api_of_another(tmp_path: Path) -> None:
    here = Settings(store=tmp_path / "models", ollama_host="127.0.0.1:1")
    way = choose_destination(Via.AUTO, here, tmp_path)
    assert (way.via, way.destination) == (Via.STORE, ToStore(here.store))
    there = Settings(store=tmp_path / "models", ollama_host="http://192.0.2.1:9")
    named = replace(there, store_named=True)
    assert choose_destination(Via.AUTO, named, tmp_path).via is Via.STORE
    assert choose_destination(Via.STORE, there, tmp_path).via is Via.STORE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "here"),
    [
        (None, True),
        ("127.0.0.1:1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("0.0.0.0:80", True),
        ("192.0.2.1", False),  # for documents only, RFC 5737
        ("https://192.0.2.1/ollama", False),
        ("nowhere.invalid", False),
    ],
)
def test_this_machine_is_known_by_its_addresses(host: str | None, here: bool) -> None:
    assert is_this_machine(server_address(host)) == here


def test_a_password_in_ollama_host_is_never_said() -> None:
    assert "secret" not in server_address("http://me:secret@box:1")
    with pytest.raises(UsageError) as caught:
        server_address("http://me:secret@box:port")
    assert "secret" not in str(caught.value) + caught.value.hint


def test_the_staging_folder_follows_the_cache(tmp_path: Path) -> None:
    assert staging_root(Settings(Path("/m"), cache=Path("/c"))) == Path("/c/dsollama")
    assert staging_root(Settings(Path("/m"))) == Path.home() / ".cache/dsollama"


Answer = tuple[int, bytes]


class Fake:
    """A server whose answers a test decides: status and body, or None to break the connection."""

    def __init__(self, decide: Callable[[str, str, bytes], Answer | None], read: int = 0) -> None:
        self.requests: list[tuple[str, str]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                fake.requests.append((self.command, self.path))
                size = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(min(size, read) if read else size)
                answer = decide(self.command, self.path, body)
                self.close_connection = True
                if answer is None:
                    return
                self.send_response(answer[0])
                self.end_headers()
                self.wfile.write(answer[1])

            do_GET = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "merged"
    path.write_bytes(bytes(8 * 2**20))
    return path


def test_an_upload_that_breaks_is_made_again_and_said(large: Path) -> None:
    arrived: list[int] = []

    def decide(method: str, _path: str, body: bytes) -> Answer | None:
        if method == "HEAD":
            return 404, b""
        arrived.append(len(body))
        return None if len(arrived) < 3 else (201, b"")

    events: list[Event] = []
    with Fake(decide) as fake:
        sent = Blobs(fake.address, pause=0.01).upload(DIGEST, large, events.append)
    assert arrived == [8 * 2**20] * 3
    assert sent == sum(arrived)
    notes = [each.text for each in events if isinstance(each, Noted)]
    assert len(notes) == 2
    assert "begins again" in notes[0]
    moved = [each for each in events if isinstance(each, BytesMoved)]
    assert (moved[-1].done, moved[-1].total) == (8 * 2**20, 8 * 2**20)


def test_an_upload_that_always_breaks_in_the_middle_ends(large: Path) -> None:
    def decide(method: str, _path: str, _body: bytes) -> Answer | None:
        return (404, b"") if method == "HEAD" else None

    with Fake(decide, read=100_000) as fake, pytest.raises(OllamaUnreachableError) as caught:
        Blobs(fake.address, pause=0.01).upload(DIGEST, large, lambda _event: None)
    assert "broke off 5 times" in str(caught.value)
    assert "kept" in caught.value.hint
    assert sum(method == "POST" for method, _ in fake.requests) == 5


def test_an_answer_that_was_lost_is_found_by_asking(large: Path) -> None:
    """The bytes arrived, the server's answer did not: nothing is sent again."""
    posted: list[int] = []

    def decide(method: str, _path: str, body: bytes) -> Answer | None:
        if method == "HEAD":
            return (200 if posted else 404), b""
        posted.append(len(body))
        return None

    with Fake(decide) as fake:
        Blobs(fake.address, pause=0.01).upload(DIGEST, large, lambda _event: None)
    assert len(posted) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((507, b""), NotEnoughDiskError, "disk of the Ollama"),
        ((500, b'{"error":"write /m: no space left on device"}'), NotEnoughDiskError, "disk"),
        ((500, b'{"error":"out of luck"}'), OllamaRefusedError, "out of luck"),
        ((400, b'{"error":"digest mismatch"}'), OllamaRefusedError, "digest mismatch"),
        ((502, b"<html>"), OllamaRefusedError, "not Ollama's JSON"),
        ((500, b"x" * 2**21), OllamaRefusedError, "without an end|not Ollama's JSON"),
    ],
)
def test_a_refused_upload_is_not_tried_again(
    answer: Answer, kind: type[DsollamaError], words: str, large: Path
) -> None:
    def decide(method: str, _path: str, _body: bytes) -> Answer | None:
        return (404, b"") if method == "HEAD" else answer

    with Fake(decide) as fake, pytest.raises(kind, match=words):
        Blobs(fake.address, pause=0.01).upload(DIGEST, large, lambda _event: None)
    assert sum(method == "POST" for method, _ in fake.requests) == 1


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        (b'{"status":"a"}\n{"error":"no space left on device"}\n', NotEnoughDiskError, "full"),
        (b'{"status":"a"}\n{"error":"bad model"}\n', OllamaRefusedError, "bad model"),
        (b'{"status":"writing manifest"}\n', OllamaRefusedError, "stopped without a word"),
        (b"", OllamaRefusedError, "stopped without a word"),
        (b"[]\n", OllamaRefusedError, "not Ollama's JSON"),
    ],
)
def test_a_create_that_fails_says_why(lines: bytes, kind: type[DsollamaError], words: str) -> None:
    with Fake(lambda *_: (200, lines)) as fake, pytest.raises(kind, match=words):
        Blobs(fake.address).create({"model": "m"}, lambda _line: None)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"version":"0.29.9"}', OllamaTooOldError),
        (b'{"version":"x"}', OllamaRefusedError),
        (b"<html>", OllamaRefusedError),
        (b"{}", OllamaRefusedError),
    ],
)
def test_only_an_ollama_that_is_new_enough_is_taken(
    body: bytes, kind: type[DsollamaError], tmp_path: Path
) -> None:
    with Fake(lambda *_: (200, body)) as fake:
        settings = Settings(store=tmp_path / "models", ollama_host=fake.address)
        with pytest.raises(kind):
            choose_destination(Via.API, settings, tmp_path)


@pytest.mark.parametrize("version", ["0.30.0", "0.33.1-rc1", "1.0.0", "0.0.0"])
def test_newer_versions_and_builds_of_ones_own_are_taken(version: str) -> None:
    with Fake(lambda *_: (200, json.dumps({"version": version}).encode())) as fake:
        assert Blobs(fake.address).version() == version


def test_no_server_is_said(tmp_path: Path) -> None:
    settings = Settings(store=tmp_path / "models", ollama_host="127.0.0.1:1")
    with pytest.raises(OllamaUnreachableError, match="No Ollama answers"):
        choose_destination(Via.API, settings, tmp_path)
