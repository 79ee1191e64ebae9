"""Whatever happens: the store is exactly what it was, or complete; and a rerun ends right.

Each case runs the real program into a fault and then once more without it. What was seen is
compared with docs/reliability.md; `make reliability` writes that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.gguf.shards import shard_file_name
from dsollama.gguf.split_program import merge
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_store import execute
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.testing.loopback_hub import LoopbackHub
from dsollama.testing.tiny_model import tiny_model, write_shards
from dsollama.transfer.journal import claimed_bytes
from faults import (
    between,
    disk,
    environment,
    hub,
    limits,
    names,
    network,
    owners,
    process,
    secrets,
    servers,
    transaction,
    weights,
)
from faults.scene import CASES, SHARDS, TOKEN, Case, Done, Scene, arranged, cdn, digests
from faults.table import Row, find_line, masked

from conftest import ROOT, STEM, TERMINUS, Bench, make_repository

DOCUMENT = ROOT / "docs" / "reliability.md"
ROWS = os.environ.get("DSOLLAMA_FAULT_ROWS")
"""Set by scripts/write_reliability.py: the folder where rows are written instead of compared."""

MODULES = (
    *(network, hub, disk, process, between, names, limits, servers, environment, secrets, weights),
    owners,
    transaction,
)
MAX_STAGING = {"lock", "install.json", "journal.json", "progress.json", "merged.gguf"}
MAX_STAGING |= {shard_file_name("model", number + 1, SHARDS) for number in range(SHARDS)}


@dataclass(frozen=True)
class Reference:
    """What a right install gives.

    Attributes:
        shards: the files that the Hub serves.
        files: the digests of a store's files after the install alone.
        earlier: a store with another model, which every case has to lose.
        size: bytes of the model.
    """

    shards: list[Path]
    files: dict[str, str]
    earlier: Path
    size: int


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    template = read_template("v3.1.jinja")
    larger = tiny_model(template, layers=3, expert_width=768)
    shards = write_shards(folder, STEM, larger, SHARDS)
    _install(shards, folder / "models", None)
    (folder / "small").mkdir()
    small = write_shards(folder / "small", STEM, tiny_model(template), 1)
    _install(small, folder / "earlier", "earlier:latest")
    files = digests(folder / "models")
    size = max(path.stat().st_size for path in (folder / "models" / "blobs").iterdir())
    program = ROOT / "llama.cpp" / "llama-gguf-split"
    if program.is_file():  # the independent merger says the same
        merge(program, shards[0], folder / "merged.gguf")
        with (folder / "merged.gguf").open("rb") as file:
            import hashlib

            digest = hashlib.file_digest(file, "sha256").hexdigest()
        assert files[f"blobs/sha256-{digest}"] == digest
    return Reference(shards, files, folder / "earlier", size)


def _install(shards: list[Path], store: Path, name: str | None) -> None:
    with LoopbackHub({TERMINUS: make_repository(shards)}) as server:
        settings = Settings(store=store, endpoint=server.endpoint)
        variants = ("plain",) if name else ()
        request = InstallRequest("UD-Q2_K_XL", settings, name=name, variants=variants)
        execute(make_plan(request, lambda _event: None), lambda _event: None, 4)


@pytest.fixture
def scene(reference: Reference, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A Hub with the model, and a store with another one."""
    store = tmp_path / "models"
    shutil.copytree(reference.earlier, store)
    repository = make_repository(reference.shards)
    ollama: Callable[[], Path] = lambda: request.getfixturevalue("ollama_program")  # noqa: E731
    with LoopbackHub({TERMINUS: repository}) as server, ExitStack() as stack:
        bench = Bench(server, repository, store, reference.shards)
        yield Scene(bench, tmp_path, stack, ollama)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_store_survives_and_a_rerun_ends_right(
    case: Case, scene: Scene, reference: Reference
) -> None:
    scene.earlier = scene.files()
    try:
        with arranged(case, scene):
            scene.before, scene.before_own = scene.files(), scene.own_files()
            done = scene.play()
            _require_told(case, scene, done)
            state = _require_intact_or_complete(case, scene, done, reference)
    except pytest.skip.Exception as reason:
        _write(case, Row(case.kind, case.fault, f"not run: {reason}", "", "", None, 1))
        raise
    sent = scene.bench.hub.bytes_sent
    again = scene.replay()
    assert again.exit == 0, again.err
    moved = scene.bench.hub.bytes_sent - sent
    _require_complete(scene, reference)
    _require_no_token_elsewhere(scene)
    told = again if case.kind == between.BETWEEN else done
    sees = _seen(case, scene, told)
    row = Row(case.kind, case.fault, sees, str(told.exit), state, moved, reference.size)
    _compare(case, row)


def _require_told(case: Case, scene: Scene, done: Done) -> None:
    """One sentence and a hint, the right exit code, and never a traceback."""
    assert done.exit == case.exits, done.err
    assert "Traceback" not in done.err
    assert "dsollama has a bug" not in done.err
    failed = case.exits > 1
    assert len(done.errors()) == failed, done.err
    if failed:
        assert done.err.count("\nHint: ") + done.err.startswith("Hint: ") == 1, done.err
        assert re.search(case.says, done.errors()[0]), done.err
    else:
        assert re.search(case.says, done.err), done.err


def _require_intact_or_complete(case: Case, scene: Scene, done: Done, reference: Reference) -> str:
    """The store is exactly what it was, or complete; what is ours has claims to go on from."""
    files = scene.files()
    if done.exit == 0 or files != scene.before:
        assert files == {**scene.before, **reference.files}
        return "complete"
    left = scene.own_files() - scene.before_own
    staged = {name for name in left if name.startswith("staging/")}
    if not case.killed:
        assert left == staged, "more than the staging folder is left"
        assert {Path(name).name for name in staged} <= MAX_STAGING
    if not staged:
        return "as it was"
    kept = claimed_bytes(scene.staging)
    assert kept or case.killed, "a staging folder without a claim is left"
    return "as it was; what came is kept" if kept else "as it was"


def _require_complete(scene: Scene, reference: Reference) -> None:
    """Both models are there, byte for byte, and nothing else of ours."""
    assert scene.files() == {**scene.earlier, **reference.files}
    left = scene.own_files() - scene.before_own
    assert all(name.startswith(("ledger/", "modelfiles/")) for name in left), left
    report = check(plan_check(scene.bench.settings(), [], quick=False, repair=False), print)
    assert report.right


def _require_no_token_elsewhere(scene: Scene) -> None:
    asked = [request for request in scene.bench.hub.requests if cdn(request)]
    assert not any(TOKEN in str(request.headers) + request.path for request in asked)


def _seen(case: Case, scene: Scene, done: Done) -> str:
    """Return what the user is told, masked: the error, or the line that names the fault."""
    hub_address, cdn_address = scene.bench.hub.endpoint, scene.bench.hub.cdn
    replaced = {hub_address.replace("http:", "https:"): "HUB", hub_address: "HUB"}
    replaced |= {cdn_address: "CDN", str(scene.store): "STORE", str(scene.tmp): "TMP"}
    replaced |= {scene.key(): "KEY"}
    if done.errors():
        return masked(done.errors()[0], replaced)
    if done.exit < 0:
        return "nothing: the program is gone"
    if done.exit:
        return "nothing: nobody reads it"
    says = "its bytes are wrong" if case.kind == between.BETWEEN else case.says
    lines = [line for line in done.err.splitlines() if says and re.search(says, line)]
    return masked("; ".join([*lines[:1], "installed"]), replaced)


def _compare(case: Case, row: Row) -> None:
    """The document says what was seen."""
    if ROWS:
        _write(case, row)
        return
    line = find_line(DOCUMENT, case.kind, case.fault)
    assert line is not None, "docs/reliability.md lacks this fault: run `make reliability`"
    assert row.agrees(line), f"{row.text()}\nis not what docs/reliability.md says:\n{line}"


def _write(case: Case, row: Row) -> None:
    if ROWS:
        Path(ROWS, f"{case.name}.json").write_text(json.dumps(row.to_json()))


def test_every_fault_is_told_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({(case.kind, case.fault) for case in CASES}) == len(CASES)
    assert {module.__name__ for module in MODULES} == {case.arrange.__module__ for case in CASES}
    assert len(CASES) >= 40
