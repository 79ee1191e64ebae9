"""`dsollama template`: every engine prints the same prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import conversations as said
from conformance import reference

from conftest import ROOT, Engine


def template(
    *arguments: str, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", "template", *arguments],
        env=dict(os.environ) | environment, input=stdin, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


MESSAGES = [said.system("Be kind."), said.user("1"), said.bot("x</think>2"), said.user("東京?")]


def test_our_jinja_is_rendered_from_stdin_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "messages.json").write_text(json.dumps(MESSAGES))
    (tmp_path / "tools.json").write_text(json.dumps([said.WEATHER]))
    done = template("render", "--think", stdin=json.dumps(MESSAGES))
    assert done.stdout == reference.v31(MESSAGES, think=True)
    tools = ["--tools", str(tmp_path / "tools.json")]
    done = template("render", str(tmp_path / "messages.json"), *tools)
    assert done.stdout == reference.v31(MESSAGES, tools=[said.WEATHER])
    done = template("render", "--model", "v3-0324", stdin=json.dumps(MESSAGES))
    assert done.stdout == reference.v3(MESSAGES)


@pytest.mark.engines
@pytest.mark.parametrize("engine_name", ["go", "ollama"])
def test_the_running_ollama_renders(engine_name: str, engine: Engine) -> None:
    done = template(
        "render", "--engine", engine_name, "--name", engine.names[1], "--think",
        stdin=json.dumps(MESSAGES), **engine.environment,
    )  # fmt: skip
    assert done.stdout == reference.v31(MESSAGES, think=True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (["render"], "{", "cannot be read as JSON"),
        (["render"], '{"role": "user"}', "not a JSON list"),
        (["render", "/nowhere.json"], "", "cannot be read"),
        (["render"], '[{"role": "user"}]', "cannot be rendered"),
        (["render", "--engine", "go"], "[]", "running Ollama"),
        (["render", "--model", "v9"], "[]", "no model"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], stdin: str, sentence: str) -> None:
    done = template(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_answer_is_said() -> None:
    done = template("render", "--engine", "llama-server", "--url", "http://127.0.0.1:1", stdin="[]")
    assert done.returncode == 6
    assert "No llama-server answers" in done.stderr


def test_templates_are_shown_as_they_are() -> None:
    jinja = template("show", "--engine", "jinja").stdout
    assert jinja == (ROOT / "templates" / "v3.1.jinja").read_text()
    go = template("show", "--variant", "thinking").stdout
    kept = (ROOT / "modelfiles" / "deepseek-v3.1-terminus-thinking.Modelfile").read_text()
    assert go in kept
    assert go.startswith("{{- /* Thinks unless")
