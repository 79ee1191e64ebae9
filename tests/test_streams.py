"""Whatever stdin, stdout and stderr are, a command prints what they can take, or says so once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Bench

LIST = ("list",)
MODEL = "deepseek-v3.1-terminus"
NAMES = (b"caf\xc3\xa9", b"\xff\xfe", b"\xe2\x80\xae", b"\xf0\x9f\xa6\x99")
"""In UTF-8: e with an acute; nothing; what turns the direction of text; a llama."""


@pytest.fixture
def odd(bench: Bench) -> Bench:
    """A store whose models have names that no terminal, or not every one, can print."""
    bench.install()
    library = bench.store / "manifests/registry.ollama.ai/library"
    for name in NAMES:
        folder = library / os.fsdecode(name)
        folder.mkdir()
        shutil.copy(library / MODEL / "UD-Q2_K_XL", folder / "latest")
    return bench


def _run(
    bench: Bench, *arguments: str, shell: str = 'exec "$@"', **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | environment, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=300, check=False,
    )  # fmt: skip


ENCODINGS = [
    {"PYTHONIOENCODING": "utf-8"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
@pytest.mark.parametrize("command", [LIST, ("verify", "--quick"), ("gc",), ("remove", "llama")])
def test_names_that_an_encoding_does_not_have_are_printed_as_numbers(
    command: tuple[str, ...], environment: dict[str, str], odd: Bench
) -> None:
    done = _run(odd, *command, **environment)
    text = done.stdout + done.stderr
    assert b"Traceback" not in text
    assert b"has a bug" not in text
    if command == LIST and done.returncode == 0 and b"caf" in text:
        e = {"utf-8": "é".encode(), "latin-1": b"\xe9"}.get(environment.get("PYTHONIOENCODING", ""))
        assert b"caf" + (e or rb"\xe9") in text


@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
def test_json_is_ascii_and_valid(environment: dict[str, str], odd: Bench) -> None:
    done = _run(odd, "list", "--json", **environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.decode("ascii"))
    assert any(MODEL in each["name"] for each in found)
    failed = _run(odd, "show", "--json", "café\udcff", **environment)
    assert failed.returncode == 2
    assert json.loads(failed.stdout.decode("ascii"))["exit"] == 2


@pytest.mark.parametrize("command", [LIST, ("list", "--json"), ("modelfile", "v3.1"),
                                     ("template", "show")])  # fmt: skip
def test_a_full_stdout_is_told_once(command: tuple[str, ...], bench: Bench) -> None:
    bench.install()
    done = _run(bench, *command, shell='exec "$@" > /dev/full')
    assert done.returncode == 9, done.stderr
    assert done.stderr.startswith(b"Error: What is printed cannot be written: No space left")
    assert done.stderr.count(b"Error: ") == 1
    assert b"Exception ignored" not in done.stderr


def test_a_full_stderr_stops_nothing(bench: Bench) -> None:
    done = _run(bench, "install", "UD-Q2_K_XL", "--yes", shell='exec "$@" 2> /dev/full')
    assert done.returncode == 0
    assert MODEL.encode() in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_files_of_the_store(closed: str, bench: Bench) -> None:
    """A file that got the number of a closed stream would get what is printed, too."""
    done = _run(bench, "install", "UD-Q2_K_XL", "--yes", "--json", shell=f'exec "$@" {closed}')
    assert done.returncode == 0, done.stderr
    checked = _run(bench, "verify")
    assert checked.returncode == 0, checked.stdout
    texts = [path.read_bytes() for path in bench.store.rglob("*") if path.is_file()]
    assert not any(b'"event"' in text or b"via store" in text for text in texts)


def test_a_reader_that_goes_is_no_error(bench: Bench) -> None:
    bench.install()
    done = _run(bench, *LIST, shell='"$@" | true; exit ${PIPESTATUS[0]}')
    assert done.returncode in {0, 1}
    assert b"Error" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("install", "a\udcffb"), ("install", "hf.co/a\udcff/b:Q"), ("show", "a\udcffb"),
        ("install", "UD-Q2_K_XL", "--name", "a\udcffb"), ("chat", "x", "a\udcffb"),
        ("install", "UD-Q2_K_XL", "--revision", "a\udcffb"), ("a\udcffb",), ("list", "--a\udcffb"),
    ],
    ids=repr,
)  # fmt: skip
def test_arguments_that_are_not_utf_8_are_told(arguments: tuple[str, ...], bench: Bench) -> None:
    done = _run(bench, *arguments, PYTHONIOENCODING="ascii")
    assert done.returncode not in {0, 1}
    assert b"Traceback" not in done.stderr
    assert b"has a bug" not in done.stderr


def test_a_store_whose_name_is_not_utf_8_is_told(bench: Bench, tmp_path: Path) -> None:
    """Ollama's Modelfile could not name its files."""
    done = _run(bench, "install", "UD-Q2_K_XL", "--yes", "--store", f"{tmp_path}/st\udcff")
    assert done.returncode == 2
    assert b"Give --store / OLLAMA_MODELS another path." in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"SSL_CERT_FILE": "/missing"}, {"HTTP_PROXY": "http://h\udcff:1"}, {"NO_PROXY": "\udcff"},
        {"ALL_PROXY": "socks9://x"},
    ],
    ids=str,
)  # fmt: skip
def test_chat_with_an_ollama_nearby_needs_none_of_these(
    environment: dict[str, str], bench: Bench
) -> None:
    done = _run(bench, "chat", "x", "hello", **environment)
    assert done.returncode == 6, done.stderr
    assert b"No Ollama answers at http://127.0.0.1:1" in done.stderr
