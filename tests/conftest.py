"""Fixtures: the tiny model, split every way; the loopback Hub; the real engines."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from dsollama.errors import ProgramMissingError
from dsollama.events import Event
from dsollama.install.destination import Installed
from dsollama.install.plan import InstallPlan
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest, Merger
from dsollama.install.to_store import execute
from dsollama.ollama.private import (
    find_ollama,
    free_port,
    private_environment,
    private_ollama,
    program_version,
)
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub
from dsollama.testing.tiny_model import TinyModel, tiny_model, write_gguf, write_shards

ROOT = Path(__file__).parents[1]
TERMINUS = "unsloth/DeepSeek-V3.1-Terminus-GGUF"
STEM = "DeepSeek-V3.1-Terminus-UD-Q2_K_XL"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
REFERENCE_VERSION = (0, 33, 0)
ENGINES_REQUIRED = bool(os.environ.get("DSOLLAMA_REQUIRE_ENGINES"))
"""`make test` sets it: a test whose engine is missing then fails instead of being skipped."""


def without_engine(reason: str) -> NoReturn:
    if ENGINES_REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_configure() -> None:
    """Let no program that a test starts inherit a signal that is ignored or blocked here.

    Shells ignore SIGINT for a job in the background, and nohup SIGHUP; both pass on through exec.
    A handler does not, so one that does nothing keeps pytest as deaf as it was told to be.
    """
    stops = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT}
    for number in stops:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def read_terminal(terminal: int) -> bytes:
    """Return all that is written to a pseudo terminal until nobody has its other end."""
    seen = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return seen
        if not data:
            return seen
        seen += data


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's token, store, proxy or Ollama."""
    for name in list(os.environ):
        if name.startswith(("HF_", "OLLAMA_", "LLAMA_", "DSOLLAMA_")):
            monkeypatch.delenv(name)
        if name.lower().endswith("_proxy") or name in CERTIFICATES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home" / "hf"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")


@contextmanager
def public_folder() -> Iterator[Path]:
    """A new folder that every user can enter; pytest's, and TMPDIR, may be the caller's alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def tiny() -> TinyModel:
    return tiny_model(read_template("v3.1.jinja"))


@pytest.fixture(scope="session")
def shards(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Return a function that gives the tiny model in any number of shards, made once."""
    made: dict[tuple[int, bool], list[Path]] = {}

    def get(count: int, *, first_empty: bool = False) -> list[Path]:
        key = (count, first_empty)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"shards-{count}")
            made[key] = write_shards(folder, STEM, tiny, count, first_empty=first_empty)
        return made[key]

    return get


@pytest.fixture(scope="session")
def single(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as one file that was never split."""
    path = tmp_path_factory.mktemp("single") / "DeepSeek-V3.1-Terminus-UD-TQ1_0.gguf"
    write_gguf(path, tiny)
    return path


@dataclass
class Bench:
    """A Hub with the tiny model in the real repository's layout, and a store to install into."""

    hub: LoopbackHub
    repository: HubRepository
    store: Path
    shards: list[Path]
    events: list[Event] = field(default_factory=list)

    def settings(self, **changes: object) -> Settings:
        values: dict[str, object] = {"store": self.store, "endpoint": self.hub.endpoint}
        return Settings(**(values | changes))  # type: ignore[arg-type]

    def request(self, target: str = "UD-Q2_K_XL", **changes: object) -> InstallRequest:
        settings = changes.pop("settings", None) or self.settings()
        return InstallRequest(target, settings, **changes)  # type: ignore[arg-type]

    def plan(self, target: str = "UD-Q2_K_XL", **changes: object) -> InstallPlan:
        return make_plan(self.request(target, **changes), self.events.append)

    def install(self, target: str = "UD-Q2_K_XL", **changes: object) -> Installed:
        return execute(self.plan(target, **changes), self.events.append, connections=4)

    def environment(self) -> dict[str, str]:
        """For a `dsollama` in a process of its own."""
        return dict(os.environ) | {
            "HF_ENDPOINT": self.hub.endpoint,
            "OLLAMA_MODELS": str(self.store),
            "OLLAMA_HOST": "127.0.0.1:1",
        }

    def files(self) -> dict[str, bytes]:
        """Every file of the store that Ollama would see, and any other; ours are left out."""
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for path in sorted(self.store.rglob("*"))
            if path.is_file() and ".dsollama" not in path.parts
        }

    def staged(self) -> list[Path]:
        """Folders of installs under way."""
        folder = self.store / ".dsollama" / "staging"
        return sorted(folder.iterdir()) if folder.is_dir() else []


def make_repository(paths: list[Path], quant: str = "UD-Q2_K_XL") -> HubRepository:
    repository = HubRepository()
    for path in paths:
        repository.add(f"{quant}/{path.name}", path)
    return repository


@pytest.fixture
def bench(shards: Callable[..., list[Path]], tmp_path: Path) -> Iterator[Bench]:
    """A Hub that serves three shards under the catalog's default repository."""
    folder = tmp_path / "hub"
    folder.mkdir()
    paths = [Path(shutil.copy(path, folder)) for path in shards(3)]
    repository = make_repository(paths)
    with LoopbackHub({TERMINUS: repository}) as hub:
        yield Bench(hub, repository, tmp_path / "models", paths)


@pytest.fixture(scope="session")
def gguf_split() -> Path:
    """The real llama-gguf-split."""
    program = ROOT / "llama.cpp" / "llama-gguf-split"
    if not program.is_file():
        without_engine("llama.cpp/llama-gguf-split is not built: run `make engines`")
    return program


@pytest.fixture(scope="session")
def ollama_program() -> Path:
    """The real Ollama 0.33.0, which the templates are proved on."""
    try:
        program = find_ollama(str(ROOT / ".engines" / "bin" / "ollama"))
    except ProgramMissingError:
        without_engine(".engines/bin/ollama is not built: run `make engines`")
    version = program_version(program)
    assert version == REFERENCE_VERSION, f".engines holds Ollama {version}"
    return program


@dataclass(frozen=True)
class Engine:
    """A running private Ollama on a store."""

    address: str
    environment: Mapping[str, str]
    store: Path
    program: Path
    names: tuple[str, ...]
    log: Path


@pytest.fixture(scope="session")
def engine(
    ollama_program: Path,
    shards: Callable[..., list[Path]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """Ollama 0.33.0 on a store into which dsollama installed the tiny model from nine shards."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "home").mkdir()
    with LoopbackHub({TERMINUS: make_repository(shards(9))}) as hub:
        settings = Settings(store=folder / "models", endpoint=hub.endpoint)
        plan = make_plan(
            InstallRequest("UD-Q2_K_XL", settings, merger=Merger.NATIVE), lambda _event: None
        )
        names = execute(plan, lambda _event: None, connections=4).names
    environment = private_environment(folder / "home", folder / "models", free_port(), os.environ)
    log = folder / "ollama.log"
    with private_ollama(ollama_program, environment, log) as address:
        yield Engine(address, environment, folder / "models", ollama_program, names, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show which prompts were compared (models x variants x engines x cases), and the kills."""
    found = _recorded(terminalreporter, "matrix")
    if found:
        total = sum(int(line.split(": ")[1].split()[0]) for line in found)
        terminalreporter.section("prompts compared with the reference, without a difference")
        for line in found:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"{total} prompts in all, 0 differences")
    kills = _recorded(terminalreporter, "kills")
    if kills:
        terminalreporter.section("kill -9, each followed by a rerun that ended right")
        for line in kills:
            terminalreporter.write_line(line)


def _recorded(terminalreporter: pytest.TerminalReporter, wanted: str) -> list[str]:
    """Return what passed tests recorded under a name."""
    return sorted(
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == wanted
    )
