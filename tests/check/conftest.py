"""An installed model whose ledger knows many small blocks, and ways to spoil it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from dsollama.check.check import check
from dsollama.check.findings import Finding, StoreReport
from dsollama.check.plan import plan_check
from dsollama.events import Event
from dsollama.gguf.merge import MergedLayout
from dsollama.manifest.layers import MODEL
from dsollama.manifest.names import parse_name
from dsollama.store.ledger import LedgerEntry
from dsollama.store.store import Store

from conftest import Bench

BLOCK = 256 * 2**10
NAMES = ("deepseek-v3.1-terminus:UD-Q2_K_XL", "deepseek-v3.1-terminus:UD-Q2_K_XL-thinking")


def prefixes(data: bytes, block: int = BLOCK) -> tuple[str, ...]:
    digest, found = hashlib.sha256(), []
    for start in range(0, len(data), block):
        digest.update(data[start : start + block])
        found.append(digest.hexdigest())
    return tuple(found)


@dataclass
class Installed:
    """The tiny model in a store, its bytes as they should be, and the Hub that it came from."""

    bench: Bench
    digest: str
    right: bytes
    layout: MergedLayout
    events: list[Event] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.bench.store)

    @property
    def blob(self) -> Path:
        return self.store.blob_path(self.digest)

    @property
    def entry(self) -> LedgerEntry:
        entry = self.store.ledger.read(self.digest)
        assert entry is not None
        return entry

    def change_entry(self, **changes: object) -> None:
        self.store.ledger.write(self.digest, structs.replace(self.entry, **changes))

    def spoil(self, *places: int) -> bytes:
        """Flip a bit at each place, and return the whole blob as it is then."""
        data = bytearray(self.blob.read_bytes())
        for place in places:
            data[place] ^= 1
        self.blob.write_bytes(data)
        return bytes(data)

    def small(self, media_type: str, name: str = NAMES[0]) -> Path:
        model = self.store.model(parse_name(name))
        layer = model.config if model.config.media_type == media_type else model.layer(media_type)
        assert layer is not None
        return self.store.blob_path(layer.digest)

    def check(
        self, *names: str, quick: bool = False, repair: bool = False, **settings: object
    ) -> StoreReport:
        plan = plan_check(
            self.bench.settings(**settings),
            [parse_name(name) for name in names],
            quick=quick,
            repair=repair,
        )
        return check(plan, self.events.append)

    def finding(self, *names: str, **how: bool) -> Finding:
        """Check, and return the one finding that all models share."""
        report = self.check(*names, **how)
        found = {each for model in report.models for each in model.findings}
        assert len(found) == 1, found
        return found.pop()

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dsollama", *arguments],
            env=self.bench.environment() | environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip

    def leftovers(self) -> list[Path]:
        """What a repair may have forgotten in dsollama's folder."""
        folders = (self.store.own / "repair", self.store.own / "tmp")
        return [path for folder in folders for path in folder.rglob("*")]


@pytest.fixture
def installed(bench: Bench) -> Installed:
    plan = bench.plan()
    assert plan.layout is not None
    done = bench.install()
    right = Store(bench.store).blob_path(done.digest).read_bytes()
    made = Installed(bench, done.digest, right, plan.layout)
    made.change_entry(block=BLOCK, prefixes=prefixes(right))
    assert MODEL in {layer.media_type for layer in made.store.models()[0].layers}
    return made
