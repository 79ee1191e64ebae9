"""Programs never come from the current folder, and none gets a secret."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dsollama
from dsollama import programs
from dsollama.errors import ProgramFailedError, ProgramMissingError
from dsollama.gguf.split_program import PROGRAM, find_program
from dsollama.ollama.private import find_ollama

from conftest import Bench

TOKEN, PASSWORD = "hf_verysecret", "open-sesame"
SECRETS = {
    "HF_TOKEN": TOKEN,
    "HUGGING_FACE_HUB_TOKEN": TOKEN,
    "MINE": TOKEN,
    "HF_ENDPOINT": f"https://me:{PASSWORD}@mirror.example/hub",
    "https_proxy": f"http://me:{PASSWORD}@proxy.example:3128",
    "AWS_SECRET_ACCESS_KEY": PASSWORD,
    "OPENAI_API_KEY": PASSWORD,
}
KEPT = {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "0", "LANG": "C.UTF-8", "no_proxy": "mirror"}


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with every program under every name; each leaves a file when it runs."""
    folder = tmp_path / "trap"
    caught = f"open({str(folder / 'caught')!r}, 'a').write(__file__)\n"
    says = "print('ollama version is 99.0.0')\n"
    for name in (PROGRAM, f"llama.cpp/{PROGRAM}", "ollama", ".engines/bin/ollama", "bin/ollama"):
        script(folder / name, caught + says)
    script(folder / f"bin/{PROGRAM}", caught)
    for module in ("json.py", "typer.py", "dsollama/__init__.py", "dsollama/__main__.py"):
        script(folder / module, caught)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(programs, "_CHECKOUT", tmp_path / "none")
    return folder


@pytest.mark.parametrize("path", ["", ".", "bin", "::", f"{os.pathsep}.{os.pathsep}bin", "./bin"])
def test_no_program_comes_from_the_current_folder(
    path: str, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    with pytest.raises(ProgramMissingError):
        find_program()
    with pytest.raises(ProgramMissingError):
        find_ollama()
    with pytest.raises(ProgramMissingError):
        find_program(PROGRAM)  # a bare name is one of PATH
    assert not (trap / "caught").exists()


def test_a_program_of_an_absolute_folder_of_path_is_taken(
    trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = script(tmp_path / "right" / PROGRAM, "")
    monkeypatch.setenv("PATH", f".:bin:{right.parent}")
    assert find_program() == right
    assert find_program(PROGRAM) == right
    assert trap.is_dir()


def test_an_older_ollama_in_front_hides_no_newer_one(
    trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = script(tmp_path / "old" / "ollama", "print('ollama version is 0.5.0')")
    new = script(tmp_path / "new" / "ollama", "print('ollama version is 0.31.0')")
    monkeypatch.setenv("PATH", f"bin:{old.parent}:{new.parent}")
    assert find_ollama() == new
    monkeypatch.setenv("PATH", f"bin:{old.parent}")
    with pytest.raises(ProgramMissingError, match=r"is 0\.5\.0"):
        find_ollama()
    assert not (trap / "caught").exists()


@pytest.mark.parametrize("given", ["llama.cpp/llama-gguf-split", "./llama-gguf-split", "absolute"])
def test_a_path_that_the_user_names_is_taken_as_it_is(given: str, trap: Path) -> None:
    given = str(trap / PROGRAM) if given == "absolute" else given
    assert find_program(given) == (trap / given).absolute()


def test_the_checkout_s_own_engines_are_found_from_everywhere(
    trap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    built = script(checkout / "llama.cpp" / PROGRAM, "")
    engine = script(checkout / ".engines/bin/ollama", "print('ollama version is 0.33.0')")
    monkeypatch.setattr(programs, "_CHECKOUT", checkout)
    monkeypatch.setenv("PATH", "bin")
    with pytest.raises(ProgramMissingError):
        find_program()  # where there is no pyproject.toml, this is no checkout
    (checkout / "pyproject.toml").touch()
    assert (find_program(), find_ollama()) == (built, engine)
    assert trap.is_dir()


def test_we_start_ourselves_and_nothing_of_the_current_folder(trap: Path) -> None:
    done = subprocess.run(
        [*programs.ourselves(), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"dsollama {dsollama.__version__}\n"
    assert not (trap / "caught").exists()


def test_an_environment_without_secrets() -> None:
    left = programs.without_secrets(SECRETS | KEPT)
    assert left == KEPT


def test_the_merger_gets_no_secret(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that is started is a stand-in: it writes down what it was told, and fails."""
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    program = script(
        tmp_path / "bin" / PROGRAM,
        f"import json, os, sys\n"
        f"json.dump([dict(os.environ), sys.argv], open({str(told)!r}, 'w'))\nsys.exit(1)\n",
    )
    endpoint = bench.hub.endpoint.replace("//", f"//me:{PASSWORD}@")
    kept = {name: value for name, value in SECRETS.items() if name != "https_proxy"}
    done = subprocess.run(
        [sys.executable, "-m", "dsollama", "install", "UD-Q2_K_XL", "--yes",
         "--merger", "llama-gguf-split"],
        env=bench.environment() | kept
        | {"HF_ENDPOINT": endpoint, "LLAMA_GGUF_SPLIT": str(program), "LANG": "C.UTF-8"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    environment, command = json.loads(told.read_text())
    assert {"PATH", "LANG"} <= set(environment)
    assert TOKEN not in told.read_text()
    assert PASSWORD not in told.read_text()
    assert command[1] == "--merge"


def test_programs_are_started_by_their_owner_alone() -> None:
    """Nothing else in the package calls what starts a program."""
    starts = {"run", "Popen", "call", "check_call", "check_output", "getoutput", "which"}
    systems = {"system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve", "execvp"}
    found = []
    for path in sorted(Path(dsollama.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else ""
            if (name in {"subprocess", "shutil"} and node.func.attr in starts) or (
                name == "os" and node.func.attr in systems
            ):
                found.append((path.name, node.func.attr))
    assert {path for path, _ in found} == {"programs.py"}, found
    assert stat.S_ISREG(Path(programs.__file__).stat().st_mode)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("deaf", [False, True])
def test_a_server_ends_with_its_block_and_so_do_its_children(
    deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not listen to a polite signal."""
    monkeypatch.setattr(programs, "STOP_SECONDS", 0.5)
    server = script(
        tmp_path / "server",
        "import os, signal, subprocess, sys, time\n"
        f"if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "time.sleep(300)\n",
    )
    log = tmp_path / "log"
    with programs.serving([str(server)], KEPT, log, lambda: log.read_text().endswith("\n")):
        pids = [int(pid) for pid in log.read_text().split()]
        assert all(map(alive, pids))
    deadline = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('no port'); print('gave up')", "gave up"),
        ("import time; time.sleep(300)", "nothing"),
    ],
)
def test_a_server_that_does_not_come_up_is_told_with_its_last_words(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said == "nothing":
        monkeypatch.setattr(programs, "START_SECONDS", 0.5)
    server = script(tmp_path / "server", text)
    with (
        pytest.raises(ProgramFailedError, match=f"`server serve` did not come up: .*{said}"),
        programs.serving([str(server), "serve"], KEPT, tmp_path / "log", lambda: False),
    ):
        pass
