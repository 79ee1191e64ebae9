"""The installed tiny model on the real Ollama 0.33.0, whose answers are known.

The GGUF carries its own Jinja, as Unsloth's do: without the right TEMPLATE Ollama would take it,
and the plain name would think (facts in docs/templates.md).
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from dsollama.manifest.modelfile_text import Instruction, parse_modelfile, write_modelfile
from dsollama.testing.tiny_model import ANSWER_TEXT, THOUGHT_TEXT

from conftest import TERMINUS, Engine

pytestmark = pytest.mark.engines
ASK = [{"role": "user", "content": "Hello!"}]
CASES = {
    "the plain name": ("", None, ""),
    "the plain name told not to think": ("", False, ""),
    "-thinking": ("-thinking", None, THOUGHT_TEXT),
    "-thinking told to think": ("-thinking", True, THOUGHT_TEXT),
    "-thinking told not to think": ("-thinking", False, ""),
}


def api(engine: Engine, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(f"{engine.address}{path}", json=body, timeout=300)


def command(engine: Engine, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        env=dict(engine.environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ours(engine: Engine, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return command(engine, sys.executable, "-m", "dsollama", *arguments, stdin=stdin)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_content_and_thought_arrive_apart_and_complete(
    case: str, stream: bool, engine: Engine
) -> None:
    suffix, think, thought = CASES[case]
    body: dict[str, Any] = {"model": engine.names[0] + suffix, "messages": ASK, "stream": stream}
    if think is not None:
        body["think"] = think
    answer = api(engine, "/api/chat", body)
    assert answer.status_code == 200, answer.text
    messages = [json.loads(line)["message"] for line in answer.text.splitlines()]
    assert "".join(each.get("content", "") for each in messages) == ANSWER_TEXT
    assert "".join(each.get("thinking", "") for each in messages) == thought


def test_the_plain_name_refuses_to_think_in_words(engine: Engine) -> None:
    answer = api(engine, "/api/chat", {"model": engine.names[0], "messages": ASK, "think": True})
    assert answer.status_code == 400
    assert "does not support thinking" in answer.text


@pytest.mark.parametrize(("suffix", "thought"), [("", ""), ("-thinking", THOUGHT_TEXT)])
def test_openai_clients_get_the_same(suffix: str, thought: str, engine: Engine) -> None:
    answer = api(
        engine, "/v1/chat/completions", {"model": engine.names[0] + suffix, "messages": ASK}
    )
    message = answer.json()["choices"][0]["message"]
    assert message["content"] == ANSWER_TEXT
    assert message.get("reasoning", "") == thought


@pytest.mark.parametrize(("suffix", "thinks"), [("", False), ("-thinking", True)])
def test_ollama_run_gets_the_same(suffix: str, thinks: bool, engine: Engine) -> None:
    done = command(engine, str(engine.program), "run", engine.names[0] + suffix, "Hello!")
    assert done.returncode == 0, done.stderr
    assert ANSWER_TEXT in done.stdout
    assert (THOUGHT_TEXT in done.stdout) == thinks


@pytest.mark.parametrize(
    ("suffix", "flag", "thinks"),
    [
        ("", [], False),
        ("", ["--think"], True),
        ("", ["--no-think"], False),
        ("-thinking", [], True),
        ("-thinking", ["--no-think"], False),
    ],
)
def test_dsollama_chat_gets_the_same(
    suffix: str, flag: list[str], thinks: bool, engine: Engine
) -> None:
    done = ours(engine, "chat", engine.names[0] + suffix, "Hello!", *flag)
    assert (done.returncode, done.stdout) == (0, ANSWER_TEXT + "\n"), done.stderr
    assert (THOUGHT_TEXT in done.stderr) == thinks


def test_chat_reads_a_prompt_from_stdin_and_finds_the_only_quant(engine: Engine) -> None:
    done = ours(engine, "chat", "deepseek-v3.1-terminus", stdin="Hello!\n")
    assert (done.returncode, done.stdout) == (0, ANSWER_TEXT + "\n"), done.stderr


def test_chat_names_the_models_that_there_are(engine: Engine) -> None:
    done = ours(engine, "chat", "nothing-here", "Hello!")
    assert done.returncode == 2
    assert engine.names[0] in done.stderr


def test_chat_converses_at_a_terminal(engine: Engine) -> None:
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", "chat", engine.names[1]],
        env=dict(engine.environment) | {"TERM": "dumb"},
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    seen, deadline = "", time.monotonic() + 120
    asked = 0
    while process.poll() is None and time.monotonic() < deadline:
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:
            break
        if seen.count(">>> ") > asked:
            asked += 1
            os.write(terminal, b"Hello!\n" if asked < 3 else b"/bye\n")
    assert process.wait(60) == 0
    os.close(terminal)
    assert seen.count(ANSWER_TEXT) == 2
    thoughts = re.findall("\x1b\\[2mThinking...\r\n(.*?)\r\n...done", seen)
    assert thoughts == [THOUGHT_TEXT] * 2


def test_every_variant_shares_one_loaded_model(engine: Engine) -> None:
    api(engine, "/api/chat", {"model": engine.names[0], "messages": ASK, "stream": False})
    started = engine.log.read_text().count("starting llama-server")
    for name in (engine.names[1], engine.names[0], engine.names[1]):
        api(engine, "/api/chat", {"model": name, "messages": ASK, "stream": False})
        body = {"model": name, "messages": ASK, "tools": [], "think": False}
        api(engine, "/v1/chat/completions", body)
    assert engine.log.read_text().count("starting llama-server") == started >= 1


def test_the_server_lists_and_shows_what_was_installed(engine: Engine) -> None:
    tags = requests.get(f"{engine.address}/api/tags", timeout=10).json()["models"]
    assert sorted(each["name"] for each in tags) == sorted(engine.names)
    plain = api(engine, "/api/show", {"model": engine.names[0]}).json()
    thinking = api(engine, "/api/show", {"model": engine.names[1]}).json()
    assert "thinking" not in plain["capabilities"]
    assert "thinking" in thinking["capabilities"]
    assert "tools" in plain["capabilities"]
    assert plain["details"]["family"] == "deepseek2"
    assert plain["details"]["quantization_level"] == "Q2_K"
    parameters = dict(line.split() for line in plain["parameters"].splitlines())
    assert parameters == {
        "temperature": "0.6",
        "top_p": "0.95",
        "min_p": "0.01",
        "top_k": "40",
        "repeat_penalty": "1",
        "num_ctx": "16384",
    }


def test_ollama_create_from_our_modelfile_gives_the_same_layers(
    engine: Engine, tmp_path: Path
) -> None:
    """Ollama writes the template and params of our Modelfile byte for byte as we do."""
    written = ours(engine, "modelfile", "v3.1-terminus", "--from", engine.names[0])
    (tmp_path / "Modelfile").write_text(written.stdout)
    file = str(tmp_path / "Modelfile")
    made = command(engine, str(engine.program), "create", "by-hand", "-f", file)
    try:
        assert made.returncode == 0, made.stderr
        folder = engine.store / "manifests/registry.ollama.ai/library"
        by_hand = json.loads((folder / "by-hand/latest").read_text())
        tag = engine.names[0].split(":")[1]
        by_us = json.loads((folder / "deepseek-v3.1-terminus" / tag).read_text())
        strip = [
            sorted((layer["mediaType"], layer["digest"]) for layer in each["layers"])
            for each in (by_hand, by_us)
        ]
        assert strip[0] == strip[1]
        assert by_hand["config"]["digest"] == by_us["config"]["digest"]
    finally:
        command(engine, str(engine.program), "rm", "by-hand")


MANY = """FROM {base}
# a comment
TEMPLATE \"\"\"{{{{ .System }}}} "quoted"
{{{{ .Prompt }}}}\"\"\"
SYSTEM "  two
lines "
PARAMETER stop <｜User｜>
PARAMETER stop "a b"
PARAMETER temperature 0.5
MESSAGE user Hello
MESSAGE assistant "Hi
there"
LICENSE \"\"\"MIT
and more\"\"\"
"""


def test_what_ollama_shows_of_any_modelfile_is_parsed_as_it_was_meant(
    engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "Modelfile"
    file.write_text(MANY.format(base=engine.names[0]))
    made = command(engine, str(engine.program), "create", "many", "-f", str(file))
    shown = command(engine, str(engine.program), "show", "--modelfile", "many")
    command(engine, str(engine.program), "rm", "many")
    assert (made.returncode, shown.returncode) == (0, 0), made.stderr + shown.stderr

    def meant(text: str) -> set[tuple[str, str, str]]:
        entries = parse_modelfile(text)
        return {
            (each.name, each.key, each.value)
            for each in entries
            if isinstance(each, Instruction) and each.name != "FROM"
        }

    inherited = {"top_k", "top_p", "min_p", "repeat_penalty", "num_ctx"}
    found = {each for each in meant(shown.stdout) if each[1] not in inherited}
    assert found == meant(file.read_text())
    assert meant(write_modelfile(parse_modelfile(shown.stdout))) == meant(shown.stdout)


def test_list_show_and_modelfile_tell_what_is_there(engine: Engine) -> None:
    listed = json.loads(ours(engine, "list", "--json").stdout)
    assert [each["name"] for each in listed] == list(engine.names)
    assert listed[0]["source"].startswith(f"{TERMINUS}@")
    assert engine.names[1] in ours(engine, "list").stdout
    shown = json.loads(ours(engine, "show", engine.names[0], "--json").stdout)
    assert shown["params"]["temperature"] == 0.6
    assert "temperature 0.6" in ours(engine, "show", engine.names[0]).stdout
    text = ours(engine, "modelfile", engine.names[0]).stdout
    assert f"FROM {engine.store}/blobs/sha256-" in text
    assert shown["template"] in text
    missing = ours(engine, "show", "nothing")
    assert missing.returncode == 2
    assert engine.names[0] in missing.stderr
