"""The journal of an interrupted install: what is believed, and what is not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dsollama.events import Noted
from dsollama.store.store import Store
from dsollama.transfer import journal
from dsollama.transfer.journal import (
    JOURNAL,
    MAX_JOURNAL_BYTES,
    PROGRESS,
    claimed_bytes,
    clear_claims,
    has_claims,
    read_claims,
    write_claims,
    write_progress,
)
from dsollama.transfer.region import make_regions, make_segments

from conftest import Bench

SIZES = [100, 200, 300]


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_nothing_is_claimed_where_there_is_nothing(tmp_path: Path) -> None:
    assert read_claims(tmp_path, SIZES) == {}
    assert claimed_bytes(tmp_path) == 0
    assert not has_claims(tmp_path)


def test_progress_is_believed_until_the_machine_is_started_again(tmp_path: Path) -> None:
    write_progress(tmp_path, {0: 50})
    assert read_claims(tmp_path, SIZES) == {0: 50}
    change(tmp_path / PROGRESS, boot="00000000-0000-4000-8000-000000000000")
    assert read_claims(tmp_path, SIZES) == {}
    assert claimed_bytes(tmp_path) == 0


def test_durable_claims_outlive_the_machine(tmp_path: Path) -> None:
    write_claims(tmp_path, {0: 40, 2: 7})
    write_progress(tmp_path, {0: 50})
    change(tmp_path / PROGRESS, boot="another")
    assert read_claims(tmp_path, SIZES) == {0: 40, 2: 7}


def test_progress_under_the_name_of_the_durable_journal_is_not_believed(tmp_path: Path) -> None:
    write_progress(tmp_path, {0: 50})
    (tmp_path / PROGRESS).rename(tmp_path / JOURNAL)
    assert read_claims(tmp_path, SIZES) == {}


def test_the_larger_claim_of_the_two_counts(tmp_path: Path) -> None:
    write_claims(tmp_path, {0: 90, 1: 10, 2: 5})
    write_progress(tmp_path, {0: 20, 1: 60})
    assert read_claims(tmp_path, SIZES) == {0: 90, 1: 60, 2: 5}
    assert claimed_bytes(tmp_path) == 155


def test_claims_beyond_a_segment_are_cut_and_of_unknown_ones_dropped(tmp_path: Path) -> None:
    write_claims(tmp_path, {0: 10**30, 1: 200, 3: 1, 10**12: 5})
    assert read_claims(tmp_path, SIZES) == {0: 100, 1: 200}


def test_without_a_boot_id_there_is_no_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_progress(tmp_path, {0: 50})
    monkeypatch.setattr(journal, "_BOOT_ID", tmp_path / "not there")
    assert read_claims(tmp_path, SIZES) == {}
    clear_claims(tmp_path)
    write_progress(tmp_path, {0: 50})
    assert not has_claims(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"done": {"0": -1}, "version": 2}',
        '{"done": {"-1": 1}, "version": 2}',
        '{"done": {"0": 1.5}, "version": 2}',
        '{"done": {"x": 1}, "version": 2}',
        '{"done": {"0": 1}, "version": 1}',
        '{"done": {"0": 1}, "version": 2, "more": 1}',
        '{"done": {"0": 1}, "version": 2}' + " " * MAX_JOURNAL_BYTES,
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("name", [JOURNAL, PROGRESS])
def test_what_is_no_journal_claims_nothing(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_claims(tmp_path, SIZES) == {}
    assert has_claims(tmp_path)


def test_a_link_claims_nothing(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    write_claims(tmp_path, {0: 50})
    (staging / JOURNAL).symlink_to(tmp_path / JOURNAL)
    assert read_claims(staging, SIZES) == {}


def test_clearing_leaves_no_file(tmp_path: Path) -> None:
    write_claims(tmp_path, {0: 1})
    write_progress(tmp_path, {0: 1})
    clear_claims(tmp_path)
    assert list(tmp_path.iterdir()) == []
    clear_claims(tmp_path)


def test_a_lying_journal_costs_a_second_fetch_and_never_the_model(bench: Bench) -> None:
    plan = bench.plan()
    staging = bench.store / ".dsollama" / "staging" / plan.key
    staging.mkdir(parents=True)
    with (staging / "merged.gguf").open("wb") as file:
        file.truncate(plan.size)
    files = dict.fromkeys(range(len(plan.shards)), staging)
    regions = make_regions(
        plan.shards, plan.staged_spans, files, dict.fromkeys(files, b""), plan.size
    )
    write_claims(staging, {n: each.size for n, each in enumerate(make_segments(regions))})
    done = bench.install()
    blob = Store(bench.store).blob_path(done.digest)
    assert done.digest == f"sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
    assert done.resumed == done.moved == sum(region.span.size for region in regions)
    assert len([event for event in bench.events if isinstance(event, Noted)]) == len(plan.shards)
    assert not bench.staged()
