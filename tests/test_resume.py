"""An install that stopped goes on with its own files, whatever the Hub has by then."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dsollama.errors import InterruptedByUserError, UsageError
from dsollama.events import Event, ShardVerified
from dsollama.install.record import stopped_installs
from dsollama.install.to_store import execute
from dsollama.resources import read_template
from dsollama.store.store import Store
from dsollama.testing.tiny_model import tiny_model, write_shards

from conftest import STEM, TERMINUS, Bench, make_repository

OTHER_COMMIT = "b" * 40


def stop_after(bench: Bench, shard: int, **changes: object) -> None:
    """Install, and stop when `shard` is verified."""

    def listen(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == shard:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError):
        execute(bench.plan(**changes), listen, connections=1)


def move_on(bench: Bench, folder: Path) -> None:
    """The Hub gets a commit with other bytes; the old commit stays, as on the real one."""
    model = tiny_model(read_template("v3.1.jinja"), layers=4)
    newer = make_repository(write_shards(folder, STEM, model, 3))
    newer.commit = OTHER_COMMIT
    newer.older[bench.repository.commit] = bench.repository
    bench.hub.repositories[TERMINUS] = newer


def run(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsollama", "install", *arguments]
    return subprocess.run(
        command, env=bench.environment(), capture_output=True, text=True, timeout=120, check=False
    )


def test_it_stays_with_the_commit_it_began_with_and_says_so(bench: Bench, tmp_path: Path) -> None:
    stop_after(bench, 2)
    old = bench.repository.commit
    move_on(bench, tmp_path / "newer")
    plan = bench.plan()
    assert plan.commit == old
    assert plan.state.resumed > 0
    assert any(f"goes on with commit {old[:12]}" in note for note in plan.notes)
    assert any(f"--revision {OTHER_COMMIT[:12]}" in note for note in plan.notes)
    before = bench.hub.bytes_sent
    done = execute(plan, bench.events.append, connections=2)
    shards = [path.stat().st_size for path in bench.shards]
    assert bench.hub.bytes_sent - before < sum(shards) - shards[0]
    entry = Store(bench.store).ledger.read(done.digest)
    assert entry is not None
    assert entry.commit == old


def test_a_revision_takes_the_new_one(bench: Bench, tmp_path: Path) -> None:
    stop_after(bench, 2)
    move_on(bench, tmp_path / "newer")
    plan = bench.plan(revision=OTHER_COMMIT)
    assert (plan.commit, plan.state.resumed) == (OTHER_COMMIT, 0)


def test_a_new_commit_with_the_same_shards_takes_over(bench: Bench) -> None:
    stop_after(bench, 2)
    same = replace(bench.repository, commit=OTHER_COMMIT)
    bench.hub.repositories[TERMINUS] = same
    plan = bench.plan()
    assert (plan.commit, plan.notes) == (OTHER_COMMIT, ())
    assert plan.state.resumed > 0


def test_resume_alone_needs_no_listing(bench: Bench) -> None:
    stop_after(bench, 2, name="mine", variants=("plain",))
    bench.hub.requests.clear()
    done = run(bench, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    installed = json.loads(done.stdout.splitlines()[-1])
    assert installed["names"] == ["mine:UD-Q2_K_XL"]
    assert installed["resumed"] > 0
    assert not [each for each in bench.hub.requests if each.path.startswith("/api/models")]
    assert not bench.staged()


def test_resume_with_nothing_to_go_on_with_says_so(bench: Bench) -> None:
    done = run(bench, "--resume")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No install has stopped" in done.stderr
    with pytest.raises(UsageError, match="No install of UD-Q2_K_XL"):
        bench.plan(resume=True)


def test_two_stopped_installs_have_to_be_told_apart(
    bench: Bench, shards: Callable[..., list[Path]]
) -> None:
    stop_after(bench, 2)
    bench.hub.repositories["unsloth/DeepSeek-V3.1-GGUF"] = make_repository(shards(9))
    stop_after(bench, 2, target="hf.co/unsloth/DeepSeek-V3.1-GGUF:UD-Q2_K_XL")
    assert len(list(stopped_installs(Store(bench.store)))) == 2
    done = run(bench, "--resume")
    assert done.returncode == 2
    assert "dsollama install --resume UD-Q2_K_XL --model v3.1-terminus" in done.stderr
    done = run(bench, "--resume", "UD-Q2_K_XL")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff"])
def test_a_damaged_record_costs_nothing_but_itself(bench: Bench, data: bytes) -> None:
    stop_after(bench, 2)
    (bench.staged()[0] / "install.json").write_bytes(data)
    plan = bench.plan()
    assert plan.state.resumed > 0
    execute(plan, bench.events.append, connections=2)
    assert not bench.staged()


def test_the_commit_may_not_be_changed_while_resuming(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--resume"):
        bench.plan(resume=True, revision="main")
