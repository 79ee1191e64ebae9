"""The wheel alone, in an empty environment elsewhere, installs a model."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT, Bench


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_exactly_the_package_and_its_data(wheel: Path) -> None:
    source = ROOT / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "dsollama").rglob("*")
        if path.is_file() and path.suffix in {".py", ".toml", ".json", ".typed"}
    }
    expected |= {f"dsollama/_data/templates/{path.name}" for path in (ROOT / "templates").iterdir()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert "dsollama/py.typed" in held


def test_the_wheel_installs_a_model_in_an_empty_environment(
    wheel: Path, bench: Bench, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Of the lock's pins only those that the wheel asks for: its own metadata is what is tested.
    locked = "".join(
        line.split(" \\")[0].split(" ;")[0] + "\n"
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and not line.startswith(("#", " "))
    )
    (tmp_path / "pins.txt").write_text(locked)
    subprocess.run([*pip, "--constraint", tmp_path / "pins.txt", wheel], check=True, cwd=tmp_path)
    environment = {
        name: value
        for name, value in bench.environment().items()
        if name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        [place / "bin" / "dsollama", "install", "UD-Q2_K_XL"],
        env=environment | {"PATH": os.defpath}, cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bench.store.joinpath("manifests/registry.ollama.ai/library").is_dir()
    where = [python, "-c", "import dsollama; print(dsollama.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(place))
