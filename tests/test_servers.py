"""An Ollama or llama-server that is hostile, broken, slow or somebody else: bounded, one sentence.

Real servers do none of this; `rogue` is a real one on loopback that does it byte by byte.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsollama.catalog.formats import VARIANTS
from dsollama.errors import EngineError, OllamaRefusedError, OllamaSilentError
from dsollama.events import Event, Noted
from dsollama.ollama import wire
from dsollama.ollama.answers import Limits, Peer, Question, asked
from dsollama.ollama.server import Server
from dsollama.ollama.upload import Blobs
from dsollama.settings import Patience
from dsollama.templates.variants import go_template
from peak import Measured, measured
from rogue import Answer, Rogue, Visit, answers, answers_json, by_path, head, rogue, sends

from conftest import ROOT, Bench, read_terminal

SOURCES = ROOT / "src" / "dsollama"
MAX_BYTES = 256 * 2**20
GUARD_SECONDS = 100.0
QUICK = {"DSOLLAMA_ANSWER_TIMEOUT": "3", "DSOLLAMA_WORK_TIMEOUT": "3"}
"""For what falls silent; three seconds are enough for the right answers beside it."""

MODEL = "m:latest"
TAGS = answers_json({"models": [{"name": MODEL, "model": MODEL, "size": 1, "digest": "d"}]})
CHUNKED = head(headers={"Transfer-Encoding": "chunked"})
JSON_HEAD = head(headers={"Content-Type": "application/json"})
TRICKLE = 0.05


def _bomb() -> bytes:
    packed = gzip.compress(b'{"a":"' + b"x" * (400 * 2**20), 1)
    length = str(len(packed))
    return head(headers={"Content-Encoding": "gzip", "Content-Length": length}) + packed


def _said(body: bytes) -> Answer:
    return answers(body, headers={"Content-Type": "application/json"})


ROGUES: dict[str, Callable[[], Answer]] = {
    "an endless body": lambda: sends(JSON_HEAD, b"x" * 2**16),
    "endless blanks": lambda: sends(JSON_HEAD, b" " * 2**16),
    "endless empty lines": lambda: sends(JSON_HEAD, b"\n" * 2**16),
    "a gzip bomb": lambda: sends(_bomb()),
    "a byte at a time": lambda: sends(JSON_HEAD, b"x", TRICKLE),
    "a head byte by byte": lambda: sends(b"HTTP/1.1 200 OK\r\nX: ", b"x", TRICKLE),
    "endless headers": lambda: sends(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "a header without an end": lambda: sends(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 2**16),
    "endless 100 Continue": lambda: sends(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "an endless chunk extension": lambda: sends(CHUNKED + b"1;", b"x" * 2**16),
    "an endless trailer": lambda: sends(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000),
    "chunks byte by byte": lambda: sends(CHUNKED, b"1\r\n \r\n", TRICKLE),
    "silence": lambda: sends(b""),
    "silence behind the head": lambda: sends(JSON_HEAD),
    "deep nesting": lambda: _said(b'{"models":[],"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
    "deep nesting of what counts": lambda: _said(b'{"models":' + b"[" * 500_000),
    "a huge number": lambda: _said(
        b'{"version":%b,"models":%b,"message":%b}' % ((b"9" * 6000,) * 3)
    ),
    "a list": lambda: _said(b"[1]"),
    "no UTF-8": lambda: _said(b'{"models":"\xff","message":"\xff"}'),
    "half of a surrogate": lambda: _said(b'{"version":"\\ud800"}'),
    "no HTTP": lambda: sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "HTTP 500 and no JSON": lambda: answers(b"<html>", "500 Bad"),
    "an error that is no text": lambda: answers_json({"error": {"a": [1]}}, "500 Bad"),
    "a redirect": lambda: answers(b"", "307 Elsewhere", {"Location": "http://192.0.2.1/x"}),
}


def require_told(done: Measured) -> None:
    """One sentence, a hint and the exit code of engines, within the memory that is promised."""
    assert done.exit == 6, done.err
    assert done.err.count("Error: ") == 1, done.err
    assert "\nHint: " in done.err
    assert "Traceback" not in done.err
    assert done.peak < MAX_BYTES


def run(server: Rogue, folder: Path, *arguments: str, **more: str) -> Measured:
    command = [sys.executable, "-m", "dsollama", *arguments]
    environment = os.environ | QUICK | {"OLLAMA_HOST": server.host} | more
    return measured(command, environment, folder, GUARD_SECONDS)


@pytest.mark.parametrize("name", ROGUES)
def test_whatever_a_server_does_a_command_is_bounded(name: str, tmp_path: Path) -> None:
    with rogue(by_path({"/api/tags": TAGS}, ROGUES[name]())) as server:
        done = run(server, tmp_path, "chat", MODEL, "Hello")
        assert server.paths() == ["/api/tags", "/api/chat"]
        require_told(done)


@pytest.mark.parametrize("name", ROGUES)
def test_whatever_it_lists_is_bounded(name: str) -> None:
    began = time.monotonic()
    with rogue(ROGUES[name]()) as server, pytest.raises(EngineError) as caught:
        Server(server.address, Patience(server=2)).names()
    assert time.monotonic() - began < 60
    assert caught.value.hint


COMMANDS = {
    "verify": ["verify", "--prompts", "deepseek-v3.1:x"],
    "render": ["template", "render", "MESSAGES", "--engine", "ollama", "--name", MODEL],
    "llama-server": ["template", "render", "MESSAGES", "--engine", "llama-server", "--url", "URL"],
    "install": ["install", "UD-Q2_K_XL", "--via", "api"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["an endless body", "a byte at a time", "a list", "a redirect"])
def test_every_command_is_bounded(name: str, command: str, tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    messages.write_text('[{"role": "user", "content": "Hello!"}]')
    with rogue(ROGUES[name]()) as server:
        places = {"MESSAGES": str(messages), "URL": server.address}
        require_told(run(server, tmp_path, *(places.get(each, each) for each in COMMANDS[command])))
        assert len(server.visits) == 1


def line(**more: object) -> bytes:
    return json.dumps({"model": MODEL, "done": False, **more}).encode() + b"\n"


def test_an_answer_that_goes_on_for_ever_is_not_kept_for_ever(tmp_path: Path) -> None:
    part = line(message={"role": "assistant", "content": "x" * 900_000})
    with rogue(by_path({"/api/tags": TAGS}, sends(JSON_HEAD, part))) as server:
        done = run(server, tmp_path, "chat", MODEL, "Hello")
    require_told(done)
    assert "longer than any model's" in done.err


def test_lines_without_an_end_are_bounded(tmp_path: Path) -> None:
    """Each comes in time, none says anything: the making of a model has a limit in all."""
    status = by_path(
        {"/api/version": answers_json({"version": "0.33.0"})},
        sends(JSON_HEAD, b'{"status":"pulling"}\n', TRICKLE),
    )
    began = time.monotonic()
    with rogue(status) as server, pytest.raises(OllamaSilentError):
        Blobs(server.address, patience=Patience(work=0.5)).pull("m")
    assert time.monotonic() - began < 60


def test_a_model_that_loads_slowly_is_waited_for(tmp_path: Path) -> None:
    """The time of a short answer does not count for a chat."""

    def answer(visit: Visit) -> None:
        visit.body()
        visit.send(JSON_HEAD)
        visit.over.wait(3)
        visit.send(line(message={"role": "assistant", "content": "It is"}))
        visit.over.wait(3)
        visit.send(line(message={"role": "assistant", "content": " 4."}, done=True))

    short = {"DSOLLAMA_ANSWER_TIMEOUT": "2", "DSOLLAMA_WORK_TIMEOUT": "60"}
    with rogue(by_path({"/api/tags": TAGS}, answer)) as server:
        done = run(server, tmp_path, "chat", MODEL, "2+2?", **short)
    assert (done.exit, done.out) == (0, "It is 4.\n"), done.err


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY")


@pytest.mark.parametrize("command", ["chat", "render", "llama-server"])
def test_prompts_never_go_to_a_proxy(command: str, tmp_path: Path) -> None:
    (tmp_path / "messages").write_text('[{"role": "user", "content": "Our secret."}]')
    right = by_path(
        {
            "/api/tags": TAGS,
            "/api/chat": answers_json(
                {
                    "model": MODEL,
                    "message": {"role": "assistant", "content": "Right."},
                    "_debug_info": {"rendered_template": "Right."},
                }
            ),
        },
        answers_json({"prompt": "Right."}),
    )
    with rogue(answers(b"", "502 Bad")) as proxy, rogue(right) as server:
        arguments = {
            "chat": ["chat", MODEL, "Our secret."],
            "render": [*COMMANDS["render"]],
            "llama-server": [*COMMANDS["llama-server"]],
        }[command]
        places = {"MESSAGES": str(tmp_path / "messages"), "URL": server.address}
        named = dict.fromkeys(PROXIES, proxy.address)
        arguments = [places.get(each, each) for each in arguments]
        done = run(server, tmp_path, *arguments, **named)
        assert proxy.visits == []
    assert (done.exit, done.out.strip()) == (0, "Right."), done.err


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_an_upload_is_not_sent_on_to_somebody_else(status: str, tmp_path: Path) -> None:
    file = tmp_path / "merged"
    file.write_bytes(bytes(2**20))
    with rogue(answers(b"", "201 Created")) as thief:
        away = answers(b"", status, {"Location": f"{thief.address}/api/blobs/sha256:0"})

        def answer(visit: Visit) -> None:
            missing = visit.head.startswith(b"HEAD")
            (answers(b"", "404 Not Found") if missing else away)(visit)

        with rogue(answer) as server, pytest.raises(OllamaRefusedError) as caught:
            Blobs(server.address, 0.01).upload("sha256:0", file, lambda _event: None)
        assert thief.visits == []
    assert "sends dsollama on to" in str(caught.value)
    assert "OLLAMA_HOST" in caught.value.hint


def test_a_receiver_that_pauses_is_waited_for(tmp_path: Path) -> None:
    """Six seconds: longer than a connection may take, and than a short answer."""
    file = tmp_path / "merged"
    file.write_bytes(bytes(16 * 2**20))
    taken: list[int] = []

    def answer(visit: Visit) -> None:
        if visit.head.startswith(b"HEAD"):
            answers(b"", "404 Not Found")(visit)
            return
        visit.over.wait(6.5)
        taken.append(len(visit.body()))
        answers(b"", "201 Created")(visit)

    events: list[Event] = []
    with rogue(answer) as server:
        blobs = Blobs(server.address, 0.01)
        assert blobs.upload("sha256:0", file, events.append) == 16 * 2**20
    assert taken == [16 * 2**20]
    notes = [each.text for each in events if isinstance(each, Noted)]
    assert re.fullmatch(
        r"The server has taken nothing for \d\.\d s; the upload waits up to 15 min 00 s\.", notes[0]
    )
    assert notes[1:] == ["The upload goes on."]


def test_a_receiver_that_takes_nothing_for_ever_is_given_up() -> None:
    with rogue(lambda visit: visit.over.wait() and None) as server:
        body = Question("POST", "/api/blobs/x", bytes(64 * 2**20), patience=1.0)
        with pytest.raises(OllamaSilentError, match="takes nothing for"):
            asked(Peer(server.address), body, Limits(60))


def test_a_refusal_in_the_middle_of_an_upload_is_heard(tmp_path: Path) -> None:
    """The server says why, and hangs up without taking the rest."""
    file = tmp_path / "merged"
    file.write_bytes(bytes(64 * 2**20))

    def answer(visit: Visit) -> None:
        if visit.head.startswith(b"HEAD"):
            answers(b"", "404 Not Found")(visit)
        else:
            visit.send(head("400 Bad", {"Connection": "close"}) + b'{"error":"no such digest"}')

    with rogue(answer) as server, pytest.raises(OllamaRefusedError, match="no such digest"):
        Blobs(server.address, 0.01).upload("sha256:0", file, lambda _event: None)


HOSTILE = "m\x1b]0;owned\x07\u202e\x9b31m\nError: all is lost"
SAFE = r"m\u001b]0;owned\u0007\u202e\u009b31m\nError: all is lost"


def chat_says(content: str) -> Answer:
    message = {"role": "assistant", "content": content}
    said = {"model": MODEL, "message": message, "done": True}
    shown = {"_debug_info": {"rendered_template": content}}
    return by_path({"/api/tags": TAGS, "/api/chat": answers_json(said | shown)}, TAGS)


@contextmanager
def at_a_terminal(server: Rogue, *arguments: str) -> Iterator[bytes]:
    """Run a command whose stdout is a terminal; give what arrives there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", *arguments],
        env=os.environ | {"OLLAMA_HOST": server.host},
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    assert select.select([ours], [], [], GUARD_SECONDS)[0]
    seen = read_terminal(ours)
    assert process.wait(GUARD_SECONDS) in (0, 2, 6)
    os.close(ours)
    yield seen


@pytest.mark.parametrize("command", ["chat", "render", "llama-server"])
def test_a_terminal_gets_no_controls_of_a_server(command: str, tmp_path: Path) -> None:
    (tmp_path / "messages").write_text('[{"role": "user", "content": "Hello!"}]')
    answer = answers_json({"prompt": HOSTILE}) if command == "llama-server" else chat_says(HOSTILE)
    with rogue(answer) as server:
        places = {"MESSAGES": str(tmp_path / "messages"), "URL": server.address}
        asked_for = COMMANDS.get(command, ["chat", MODEL, "Hello"])
        arguments = [places.get(each, each) for each in asked_for]
        with at_a_terminal(server, *arguments) as seen:
            assert b"u001b]0;owned" in seen
            assert b"\x1b" not in seen
            assert "\x9b".encode() not in seen
            turned = "\u202e".encode() in seen
            assert turned == (command == "chat")  # belongs to the text of some languages
        piped = run(server, tmp_path, *arguments)
    assert piped.out.rstrip("\n") == HOSTILE  # data is to the letter


def test_names_and_errors_of_a_server_are_one_safe_line(tmp_path: Path) -> None:
    listed = answers_json({"models": [{"name": n, "model": n} for n in (HOSTILE, "right:latest")]})
    refused = answers_json({"error": HOSTILE}, "500 Bad")
    with rogue(by_path({"/api/tags": listed}, refused)) as server:
        missing = run(server, tmp_path, "chat", "another", "Hello")
        said = run(server, tmp_path, "chat", "right", "Hello")
    assert missing.exit == 2
    assert "It has right:latest." in missing.err  # no model can have the other name
    assert SAFE in said.err
    for done in (missing, said):
        assert "\x1b" not in done.err
        assert sum(each.startswith("Error: ") for each in done.err.splitlines()) == 1


def test_progress_of_a_server_is_one_safe_line() -> None:
    program = (
        "from dsollama.cli.output import progress\n"
        "from dsollama.events import Noted\n"
        f"with progress(as_json=False) as listener: listener(Noted('Ollama: ' + {HOSTILE!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stderr == f"Ollama: {SAFE}\n"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("way", ["argument", "stdin", "system"])
def test_a_prompt_that_is_no_text_is_told(way: str, locale: str) -> None:
    arguments: dict[str, list[bytes]] = {
        "argument": [b"a\xffb"], "stdin": [], "system": [b"Hello", b"--system", b"a\xffb"]
    }  # fmt: skip
    with rogue(by_path({"/api/tags": TAGS}, answers_json({}))) as server:
        done = subprocess.run(
            [sys.executable, "-m", "dsollama", "chat", MODEL, *arguments[way]],
            env=os.environ | {"OLLAMA_HOST": server.host, "LC_ALL": locale},
            input=b"a\xffb", capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert "/api/chat" not in server.paths()
    assert done.returncode == 2
    assert b"Error: The prompt is not text in UTF-8." in done.stderr


def test_one_place_asks_servers() -> None:
    """Whoever sends by another client has other bounds, proxies and redirects."""
    clients = {"requests", "urllib3", "urllib.request", "httpx", "httpx2", "http.client", "socket"}
    own = {"ollama/answers.py", "ollama/wire.py", "ollama/client.py"}
    local = {
        f"ollama/{name}.py" for name in ("address", "handover", "private", "starting")
    }  # no HTTP to a server
    found = set()
    for room in ("ollama", "chat", "verify", "install", "cli"):
        for path in (SOURCES / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                if clients & set(names):
                    found.add(str(path.relative_to(SOURCES)))
    assert found == own | local


def test_a_stopped_program_does_not_use_up_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stop (Ctrl-Z, a laptop that sleeps) a slice is counted: what has come is read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bounded = wire.BoundedSocket(ours, [wire.Allowance(60, 100)], 60, lambda _seconds: None)
        clock = iter(range(0, 10**6, 3600))
        monkeypatch.setattr(wire.time, "monotonic", lambda: next(clock))
        for _ in range(20):
            theirs.sendall(b"here")
            assert bounded.receive(memoryview(bytearray(4))) == 4
            bounded.sendall(b"there")
            assert theirs.recv(5) == b"there"


def test_an_allowance_is_for_bytes_and_seconds() -> None:
    whole = wire.Allowance(60, 10)
    whole.charge(59, 10)
    with pytest.raises(wire.TooLargeError):
        whole.charge(0, 1)
    whole.renew()
    whole.charge(59, 10)
    with pytest.raises(wire.SilentError):
        whole.charge(1, 0)


def _taking(hostile: Answer) -> Answer:
    """An Ollama that takes a model by `create`, and is hostile once it has both names."""
    made: list[str] = []
    digest = "sha256-" + "cd" * 32
    created = answers(b'{"status":"success"}\n')

    def answer(visit: Visit) -> None:
        if visit.head.startswith(b"HEAD"):
            (hostile if len(made) > 1 else answers(b"", "404 Not Found"))(visit)
        elif visit.path == "/api/create":
            made.append(visit.path)
            created(visit)
        elif visit.path == "/api/show" and not made:
            answers_json({"error": "not found"}, "404 Not Found")(visit)
        else:
            right(visit)

    right = by_path(
        {
            "/api/version": answers_json({"version": "0.33.0"}),
            "/api/tags": answers_json({"models": []}),
            "/api/pull": answers_json({"error": "no route to host"}),
            "/api/show": answers_json({"modelfile": f"FROM /models/blobs/{digest}\n"}),
        },
        answers(b"", "201 Created"),
    )
    return answer


@pytest.mark.parametrize("name", ["silence", "no HTTP", "a redirect", "a header without an end"])
def test_an_install_by_the_api_that_is_done_stays_done(
    name: str, bench: Bench, tmp_path: Path
) -> None:
    """Both names are there; whether an uploaded file is left on the server is a note."""
    with rogue(_taking(ROGUES[name]())) as server:
        environment = bench.environment() | QUICK | {"OLLAMA_HOST": server.host}
        install = ["install", "UD-Q2_K_XL", "--via", "api", "--staging", str(tmp_path / "staging")]
        command = [sys.executable, "-m", "dsollama", *install]
        done = measured(command, environment, tmp_path, GUARD_SECONDS)
        assert server.paths()[-1].startswith("/api/blobs/sha256:")
    assert done.exit == 0, done.err
    assert "The server keeps the uploaded file until its next start:" in done.err
    assert len(done.out.split()) == 2


LARGE = 7 * 2**20


def test_large_prompts_of_a_server_are_not_kept(tmp_path: Path) -> None:
    """Each of the set may have 8 MiB, and so may the Modelfile that is looked into."""
    prompt = {"_debug_info": {"rendered_template": "\U0001f600" + "x" * LARGE}}
    hostile = by_path(
        {
            "/api/version": answers_json({"version": "9" * LARGE}),
            "/api/show": answers_json({"modelfile": "FROM x\n" * (LARGE // 8)}),
        },
        answers_json(prompt),
    )
    with rogue(hostile) as server:
        done = run(server, tmp_path, "verify", "--prompts", "deepseek-v3.1:x-thinking", "--json")
    assert done.exit == 7, done.err
    assert done.peak < MAX_BYTES
    shown = json.loads(done.out)
    assert len(shown["different"]) == shown["compared"] > 20


LISTINGS = {
    "many names": {"models": [{"name": f"m{number}:x"} for number in range(300_000)]},
    "no names": {"models": [{"name": ""}] * 500_000},
    "long names": {"models": [{"name": f"m{number}{'x' * 10**6}:x"} for number in range(7)]},
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_large_listing_of_a_server_is_bounded(name: str, bench: Bench, tmp_path: Path) -> None:
    right = answers_json({"version": "0.33.0"})
    with rogue(by_path({"/api/version": right}, answers_json(LISTINGS[name]))) as server:
        hub = {"HF_ENDPOINT": bench.hub.endpoint}
        staging = ["--via", "api", "--staging", str(tmp_path / "staging"), "--dry-run"]
        for arguments in (["chat", MODEL, "Hello"], ["install", "UD-Q2_K_XL", *staging]):
            done = run(server, tmp_path, *arguments, **hub)
            assert done.exit in {0, 2, 6}, done.err
            assert done.peak < MAX_BYTES
            assert len(done.err) < 5000


def test_large_parameters_of_a_server_are_bounded(
    bench: Bench, single: Path, tmp_path: Path
) -> None:
    """They are looked at where the server has the very weights: of a quant that is one file."""
    bench.repository.add(single.name, single)
    name = "deepseek-v3.1-terminus:UD-TQ1_0"
    weights = hashlib.sha256(single.read_bytes()).hexdigest()
    variant = VARIANTS["plain"]
    hostile = by_path(
        {
            "/api/version": answers_json({"version": "0.33.0"}),
            "/api/tags": answers_json({"models": [{"name": name, "digest": "d", "size": 1}]}),
        },
        answers_json(
            {
                "modelfile": f"FROM /blobs/sha256-{weights}\n",
                "template": go_template("v3.1", variant),
                "parameters": "a 1\n" * (LARGE // 5),
            }
        ),
    )
    with rogue(hostile) as server:
        hub = {"HF_ENDPOINT": bench.hub.endpoint}
        install = ["install", "TQ1_0", "--via", "api", "--dry-run", "--name", name]
        staging = ["--variants", "plain", "--staging", str(tmp_path / "staging")]
        done = run(server, tmp_path, *install, *staging, **hub)
    assert (done.exit, "other settings of the same weights" in done.out) == (0, True), done.out
    assert done.peak < MAX_BYTES


def test_a_long_list_of_names_is_told_in_part() -> None:
    from dsollama.chat.choose import choose_name
    from dsollama.errors import NotInstalledError

    with pytest.raises(NotInstalledError) as caught:
        choose_name("x", [f"m{number:03}" for number in range(100)], None)
    assert "m029 and 70 more. If" in caught.value.hint


def test_text_from_elsewhere_is_printed_in_one_place() -> None:
    """`cli.output` knows what a terminal may have; else only dsollama's own text is printed."""
    own = {
        "app.py": {"f'dsollama {__version__}'", "context.get_help()"},
        "chat.py": {"self._bright", "text"},  # of the mark around a thought
        "streams.py": {"f'{json.dumps(value)}\\n'"},  # JSON is all ASCII
        "template.py": {
            "jinja_template(found.format)",
            "go_template(found.format, choose_variants(found.variants, wanted)[0])",
        },
    }
    for path in (SOURCES / "cli").glob("*.py"):
        calls = [
            each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)
        ]
        printed = {
            ast.unparse(argument)
            for call in calls
            if ast.unparse(call.func) in {"print", "typer.echo", "sys.stdout.write"}
            for argument in call.args
            if not isinstance(argument, ast.Constant)
        }
        if path.name != "output.py":
            assert printed <= own.get(path.name, set()), path
