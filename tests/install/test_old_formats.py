"""A store, a ledger and a staging folder with journals, written by an older dsollama, go on.

old/store.tar.xz was made by the code of commit c1b242f, by old/make.py.txt: the shards of a small
model, a store into which it was installed, and one in which the install stopped behind shard 2.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_store import execute
from dsollama.settings import Settings
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub

from conftest import TERMINUS

ARCHIVE = Path(__file__).parent / "old" / "store.tar.xz"
DIGEST = "sha256:622acf92927139626418f856375896687d4729ed09fa6c1507046b2fe8090f43"
STAGED = 2 * 2**15
"""Bytes that the journal claims: the tensors of shards 1 and 2."""


@dataclass
class Old:
    hub: LoopbackHub
    folder: Path

    def request(self, store: str, target: str = "UD-Q2_K_XL", **more: object) -> InstallRequest:
        settings = Settings(store=self.folder / store, endpoint=self.hub.endpoint)
        return InstallRequest(target, settings, **more)  # type: ignore[arg-type]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Old]:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    repository = HubRepository()
    for path in (tmp_path / "shards").iterdir():
        repository.add(f"UD-Q2_K_XL/{path.name}", path)
    with LoopbackHub({TERMINUS: repository}) as hub:
        yield Old(hub, tmp_path)


def quiet(_event: object) -> None:
    pass


@pytest.mark.parametrize("how", [{}, {"target": "", "resume": True}], ids=["again", "resume"])
def test_a_stopped_install_goes_on(how: dict[str, object], old: Old) -> None:
    plan = make_plan(old.request("stopped", **how), quiet)  # type: ignore[arg-type]
    assert plan.state.resumed == STAGED
    done = execute(plan, quiet, connections=1)
    assert (done.digest, done.moved, done.resumed) == (DIGEST, 2**15, STAGED)


def test_an_installed_model_is_known_and_right(old: Old) -> None:
    plan = make_plan(old.request("installed"), quiet)
    assert (plan.state.installed, plan.to_move, plan.replaces) == (DIGEST, 0, ())
    store = Store(old.folder / "installed")
    assert store.ledger.read(DIGEST) is not None
    report = check(plan_check(Settings(store=store.root, endpoint=old.hub.endpoint), ()), quiet)
    assert report.right
    done = execute(plan, quiet, connections=1)
    assert (done.digest, done.moved) == (DIGEST, 0)
