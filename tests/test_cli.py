"""The program as it is typed: help, versions, output for people and for scripts."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from dsollama.catalog.models import DEFAULT_MODEL, find_model, load_catalog

from conftest import ROOT, Bench, read_terminal

COMMANDS = (
    "install",
    "chat",
    "list",
    "show",
    "modelfile",
    "remove",
    "gc",
    "template",
    "verify",
    "demo",
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=dict(os.environ) | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {command} " in done.stdout for command in COMMANDS)
    assert "..." not in done.stdout.split("Commands:")[1], "a command's summary is cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: dsollama {command}")


@pytest.mark.parametrize(
    "command", ["install", "modelfile", "verify", "template show", "template render"]
)
def test_help_lists_the_models_of_the_catalog(command: str) -> None:
    text = " ".join(run(*command.split(), "--help").stdout.split())
    assert ", ".join(load_catalog()) in text
    assert "{" not in text.replace("{MODEL}", "")


def test_the_help_of_install_lists_the_quants_of_the_default_model() -> None:
    text = " ".join(run("install", "--help").stdout.split())
    model = find_model(DEFAULT_MODEL)
    for quant, size in model.sizes.items():
        assert f"{quant} ({size} GB" in text
    assert f"{model.recommended} (251 GB, recommended)" in text


def test_no_command_prints_help_and_fails() -> None:
    done = run()
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_version() -> None:
    assert run("--version").stdout.startswith("dsollama 0.")


def test_help_starts_faster_than_hf() -> None:
    hf = shutil.which("hf", path=str(Path(sys.executable).parent))
    assert hf
    times: dict[str, list[float]] = {"ours": [], "hf": []}
    for _ in range(5):
        for name, command in (("ours", [sys.executable, "-m", "dsollama"]), ("hf", [hf])):
            times[name].append(_cpu_seconds([*command, "--help"]))
    assert statistics.median(times["ours"]) < statistics.median(times["hf"])


def _cpu_seconds(command: list[str]) -> float:
    """Return what a command takes of the processor: other programs do not slow that down."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_imports_no_client() -> None:
    code = "import sys, dsollama.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"ollama", "huggingface_hub", "requests", "httpx", "jinja2", "rich"})


def test_json_lines_tell_the_whole_install(bench: Bench) -> None:
    done = run("install", "UD-Q2_K_XL", "--json", **bench.environment())
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("shard-verified") == 3
    assert kinds[-1] == "installed"
    moved = [event for event in events if event["event"] == "bytes-moved"][-1]
    assert moved["done"] == moved["total"]


def test_a_dry_run_prints_a_plan_for_people_and_for_scripts(bench: Bench) -> None:
    done = run("install", "UD-Q2_K_XL", "--dry-run", **bench.environment())
    assert "deepseek-v3.1-terminus:UD-Q2_K_XL-thinking (thinks unless" in done.stdout
    plan = json.loads(
        run("install", "UD-Q2_K_XL", "--dry-run", "--json", **bench.environment()).stdout
    )
    assert len(plan["shards"]) == 3
    assert not bench.store.exists()


def test_without_a_terminal_progress_is_plain_lines_on_stderr(bench: Bench) -> None:
    done = run("install", "UD-Q2_K_XL", **bench.environment())
    assert done.stdout.split() == [
        "deepseek-v3.1-terminus:UD-Q2_K_XL",
        "deepseek-v3.1-terminus:UD-Q2_K_XL-thinking",
    ]
    assert "\x1b" not in done.stderr
    assert "(100%), shard 3/3" in done.stderr


def test_at_a_terminal_there_is_a_bar(bench: Bench) -> None:
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL"],
        env=bench.environment() | {"TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    seen = read_terminal(terminal)
    assert process.wait(30) == 0
    os.close(terminal)
    text = seen.decode()
    assert "11.6/11.6 MB" in text
    assert "shard 3/3" in text


def test_list_of_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    done = run("list", OLLAMA_MODELS=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "dsollama install" in done.stderr
    assert run("list", "--json", OLLAMA_MODELS=str(tmp_path)).stdout == "[]\n"


@pytest.mark.parametrize("variant", ["plain", "thinking"])
def test_modelfile_of_a_catalog_model(variant: str) -> None:
    suffix = "" if variant == "plain" else "-thinking"
    kept = ROOT / "modelfiles" / f"deepseek-v3.1-terminus{suffix}.Modelfile"
    done = run("modelfile", "v3.1-terminus", "--variant", variant)
    assert done.stdout == kept.read_text()


def test_python_m_and_the_script_are_the_same() -> None:
    script = Path(sys.executable).with_name("dsollama")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout
