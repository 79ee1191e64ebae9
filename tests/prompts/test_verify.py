"""`dsollama verify --prompts` on the real server: right, and wrong in ways that it names."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from dsollama.catalog.formats import FORMATS, VARIANTS, PromptFormat
from dsollama.catalog.models import find_model
from dsollama.errors import UsageError
from dsollama.ollama.private import free_port, private_ollama
from dsollama.ollama.shapes import Shown
from dsollama.prompts import verify as prompts_module
from dsollama.templates.variants import go_template

from conftest import ROOT, Engine


def verify(engine: Engine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", "verify", "--prompts", *arguments],
        env=dict(engine.environment), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def make(engine: Engine, name: str, origin: str, **changes: str) -> None:
    body = {"model": name, "from": origin, "stream": False, **changes}
    answer = requests.post(f"{engine.address}/api/create", json=body, timeout=300)
    assert answer.status_code == 200, answer.text


def test_the_expected_prompts_are_the_references() -> None:
    spec = importlib.util.spec_from_file_location("we", ROOT / "scripts" / "write_expected.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.FILE.read_text(encoding="utf-8") == script.expected()


@pytest.mark.engines
@pytest.mark.parametrize("variant", [0, 1], ids=["plain", "thinking"])
def test_what_dsollama_installs_is_right(variant: int, engine: Engine) -> None:
    done = verify(engine, engine.names[variant])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to the letter" in done.stdout
    found = json.loads(verify(engine, engine.names[variant], "--json").stdout)
    assert (found["different"], found["server"]) == ([], "0.33.0")
    assert found["compared"] == (21, 42)[variant]


@pytest.mark.engines
def test_another_template_is_named(engine: Engine) -> None:
    make(engine, "deepseek-v3.1:other", engine.names[0], template="{{ .System }}{{ .Prompt }}")
    try:
        done = verify(engine, "deepseek-v3.1:other")
    finally:
        requests.delete(
            f"{engine.address}/api/delete", json={"model": "deepseek-v3.1:other"}, timeout=300
        )
    assert done.returncode == 7
    assert "another template than dsollama's" in done.stdout
    assert "nothing is moved" in done.stderr


@pytest.mark.engines
def test_a_plain_template_that_ollama_overrides_is_found(engine: Engine) -> None:
    """What hand-written Modelfiles have: no head, so Ollama takes the GGUF's Jinja, and thinks."""
    # Not while the same blob is loaded for a Go template: Ollama would use that server.
    requests.post(
        f"{engine.address}/api/chat", json={"model": engine.names[0], "keep_alive": 0}, timeout=300
    )
    deadline = time.monotonic() + 120
    while requests.get(f"{engine.address}/api/ps", timeout=300).json()["models"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    template = go_template("v3.1", VARIANTS["plain"]).replace(".Suffix", ".System")
    make(engine, "deepseek-v3.1:hand", engine.names[0], template=template)
    try:
        done = verify(engine, "deepseek-v3.1:hand", "--json")
    finally:
        requests.delete(
            f"{engine.address}/api/delete", json={"model": "deepseek-v3.1:hand"}, timeout=300
        )
    assert done.returncode == 7
    different = json.loads(done.stdout)["different"]
    assert any(each["rendered"].endswith("<think>") for each in different), different[0]


@pytest.mark.engines
@pytest.mark.parametrize("variant", [0, 1], ids=["plain", "thinking"])
def test_a_server_that_takes_the_jinja_instead_is_named(
    variant: int, engine: Engine, tmp_path: Path
) -> None:
    """OLLAMA_GO_TEMPLATE=0 makes this Ollama do what another way to count capabilities would."""
    port = free_port()
    changed = {"OLLAMA_GO_TEMPLATE": "0", "OLLAMA_HOST": f"127.0.0.1:{port}"}
    environment = dict(engine.environment) | changed
    with private_ollama(engine.program, environment, tmp_path / "log"):
        other = replace(engine, environment=environment)
        done = verify(other, engine.names[variant])
    assert done.returncode == 7, done.stdout + done.stderr
    assert "takes the GGUF's own Jinja" in done.stdout
    assert "OLLAMA_GO_TEMPLATE=1" in done.stderr


class _Old(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b'{"version": "0.9.0", "message": {"role": "assistant", "content": "Hi"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""


def test_an_old_server_is_named() -> None:
    """A mock: an Ollama from before the debug rendering takes ten minutes to build."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Old) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-m", "dsollama", "verify", "--prompts", "deepseek-v3.1:x"],
            env={"OLLAMA_HOST": f"127.0.0.1:{server.server_address[1]}"},
            capture_output=True, text=True, timeout=300,
        check=False,
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 6
    assert "too old" in done.stderr
    assert "0.30" in done.stderr


@pytest.mark.engines
def test_a_name_that_does_not_tell_the_model_is_asked_about(engine: Engine) -> None:
    make(engine, "mine", engine.names[0])
    try:
        unsaid = verify(engine, "mine")
        said = verify(engine, "mine", "--model", "v3.1-terminus")
        missing = verify(engine, "deepseek-v3.1:nothing")
    finally:
        requests.delete(f"{engine.address}/api/delete", json={"model": "mine"}, timeout=300)
    assert (unsaid.returncode, said.returncode, missing.returncode) == (2, 0, 2), said.stdout
    assert "--model" in unsaid.stderr


def test_no_server_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "verify", "--prompts", "deepseek-v3.1:x"],
        env={"OLLAMA_HOST": "127.0.0.1:1"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 6
    assert "No Ollama answers" in done.stderr


def test_a_format_without_expected_prompts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "v3.1", PromptFormat("v9"))
    with pytest.raises(UsageError, match="no prompts of the format v9"):
        prompts_module._reference(prompts_module.load_cases()[0], find_model("v3.1"))


@pytest.mark.parametrize(
    ("model", "name", "variant"),
    [
        ("v3.1", "deepseek-v3.1:q2", "plain"),
        ("v3.1", "deepseek-v3.1:q2-thinking", "thinking"),
        ("v3-0324", "deepseek-v3-0324:q2-thinking", "plain"),
        ("r1-0528", "deepseek-r1-0528:q2-thinking", "always-thinking"),
    ],
)
def test_the_suffix_of_a_name_tells_its_variant(model: str, name: str, variant: str) -> None:
    assert prompts_module._variant(name, find_model(model)) is VARIANTS[variant]


@pytest.mark.parametrize(
    ("rendered", "expected", "reason"),
    [
        ("x<think>", "x</think>", "thinks though it must not"),
        ("x</think>", "x<think>", "does not think though it must"),
        ("y</think>", "x</think>", "in their text"),
    ],
)
def test_what_no_real_server_does_yet_is_named_too(
    rendered: str, expected: str, reason: str
) -> None:
    """Made up: an Ollama that changed what a missing `think` means, or how templates render."""
    check = prompts_module.Check("a question", None, rendered, expected)
    shown = Shown(template="T", modelfile="FROM x\nTEMPLATE T\n")
    found, advice = prompts_module._diagnose((check,), shown, "T", "m")
    assert reason in found
    assert "issue tracker" in advice
