"""`verify --repair`: downloads only what is bad, and never makes anything worse."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from check.conftest import BLOCK, Installed, prefixes
from dsollama.check.check import check
from dsollama.check.plan import plan_check
from dsollama.errors import (
    DsollamaError,
    HubOfflineError,
    HubUnreachableError,
    StoreBusyError,
    TransferError,
    UsageError,
)
from dsollama.events import BytesMoved
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.sources import ranges
from dsollama.span import Span
from dsollama.store.ledger import LedgerFile
from dsollama.testing.loopback_hub import Fault, LoopbackHub, Request

from conftest import TERMINUS, Bench, make_repository

HEADERS = 64 * 2**10
"""More than the headers of the three shards together."""


def evil(installed: Installed) -> None:
    """The Hub's files change, but for their headers and sizes."""
    for path in installed.bench.shards:
        data = bytearray(path.read_bytes())
        data[1_000_000:1_100_000] = bytes(each ^ 0xFF for each in data[1_000_000:1_100_000])
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("places", "blocks"),
    [
        ([0], 1),
        ([13_000], 1),  # both the header and the first tensors are in block 0
        ([5_000_000], 1),
        ([4_017_855, 4_017_856], 1),  # where the pieces of two shards meet
        ([-1], 1),
        ([BLOCK - 1, BLOCK], 2),
        ([0, 3_000_000, 3_000_001, 9_000_000, -1], 4),
    ],
)
def test_bad_blocks_alone_are_downloaded(
    places: list[int], blocks: int, installed: Installed
) -> None:
    installed.spoil(*places)
    before = installed.bench.hub.bytes_sent
    report = installed.check(repair=True)
    sent = installed.bench.hub.bytes_sent - before
    assert report.right
    assert all(model.repaired for model in report.models)
    assert installed.blob.read_bytes() == installed.right
    bad = {place % len(installed.right) // BLOCK for place in places}
    assert len(bad) == blocks
    mended = report.blobs[-1].mended
    assert [each.start // BLOCK for each in mended] == sorted(bad)
    assert report.mended <= blocks * BLOCK
    assert report.fetched == sent
    assert sent <= blocks * BLOCK + (HEADERS if 0 in bad else 0)
    assert not installed.leftovers()
    again = installed.check(repair=True)
    assert (again.right, again.mended, again.models[0].repaired) == (True, 0, False)
    assert installed.bench.hub.bytes_sent == before + sent


def test_every_place_of_the_file_can_be_spoilt_and_mended(installed: Installed) -> None:
    """Random damage, a fixed seed: runs of bytes anywhere, header and padding included."""
    chance = random.Random(5)
    for _ in range(6):
        data = bytearray(installed.right)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(data))
            size = chance.randint(1, 2 * BLOCK)
            data[at : at + size] = chance.randbytes(len(data[at : at + size]))
        installed.blob.write_bytes(data)
        assert installed.check(repair=True).right
        assert installed.blob.read_bytes() == installed.right


def test_padding_between_pieces_is_rebuilt(installed: Installed) -> None:
    """A shard may end without its last tensor's padding: no span has those zeros then."""
    entry = installed.entry
    cut = entry.spans[0]
    ends = cut.target + cut.size
    zeros = len(installed.right[:ends]) - len(installed.right[:ends].rstrip(b"\0"))
    # What the entry of such a shard looks like: the span stops before the zeros.
    shorter = Span(cut.file, cut.source, cut.target, cut.size - zeros)
    installed.change_entry(spans=(shorter, *entry.spans[1:]))
    installed.spoil(ends - 1)
    assert installed.check(repair=True).right
    assert installed.blob.read_bytes() == installed.right


@pytest.mark.parametrize("keep", [0, 1, 100, BLOCK, BLOCK + 1, 5_000_000, -1])
def test_a_cut_blob_gets_its_end_back(keep: int, installed: Installed) -> None:
    installed.blob.write_bytes(installed.right[:keep])
    found = installed.finding()
    assert found.code == "wrong-size"
    before = installed.bench.hub.bytes_sent
    report = installed.check(repair=True)
    assert report.right
    assert installed.blob.read_bytes() == installed.right
    missing = len(installed.right) - keep % len(installed.right)
    assert installed.bench.hub.bytes_sent - before <= missing + BLOCK + HEADERS
    moved = [event for event in installed.events if isinstance(event, BytesMoved)]
    assert all(event.done <= event.total for event in moved)
    assert not installed.leftovers()


def test_a_cut_blob_with_other_damage_is_repaired_in_one_pass(installed: Installed) -> None:
    installed.spoil(7, 2_000_000)
    os.truncate(installed.blob, 6_000_000)
    assert "first in bytes 0 to" in installed.finding().message
    assert installed.check(repair=True).right
    assert installed.blob.read_bytes() == installed.right


def test_a_blob_that_is_too_long_is_cut_without_the_hub(installed: Installed) -> None:
    installed.blob.write_bytes(installed.right + os.urandom(3 * BLOCK + 1))
    found = installed.finding()
    assert (found.code, "which are right" in found.message) == ("wrong-size", True)
    installed.store.ledger.remove(installed.digest)  # the manifest's size does as well
    before = len(installed.bench.hub.requests)
    report = installed.check(repair=True)
    assert (report.right, report.models[0].repaired) == (True, True)
    assert installed.blob.read_bytes() == installed.right
    assert len(installed.bench.hub.requests) == before


def test_a_blob_too_long_and_damaged_is_both_cut_and_mended(installed: Installed) -> None:
    installed.blob.write_bytes(installed.right + b"more")
    installed.spoil(3_000_000)
    assert installed.check(repair=True).right
    assert installed.blob.read_bytes() == installed.right


def test_a_missing_blob_is_an_install(installed: Installed) -> None:
    installed.blob.unlink()
    before = installed.bench.hub.bytes_sent
    found = installed.finding(repair=True)
    assert found.code == "missing-blob"
    assert "`dsollama install hf.co/" in found.hint
    assert installed.bench.hub.bytes_sent == before


def test_a_hub_that_sends_other_bytes_changes_nothing(installed: Installed) -> None:
    spoilt = installed.spoil(1_100_000, 5_000_000)
    evil(installed)
    found = installed.finding(repair=True)
    assert found.code == "wrong-digest"
    assert found.hint.startswith(
        "The repair changed nothing: the Hub sends other bytes than those that were installed."
    )
    assert installed.blob.read_bytes() == spoilt
    assert not installed.leftovers()


def test_what_was_mended_before_a_block_that_cannot_be_is_not_written_either(
    installed: Installed,
) -> None:
    """Block 0 could be had, a later one not: no prefix proves what the end does not prove."""
    spoilt = installed.spoil(0, 5_100_000)
    evil(installed)
    found = installed.finding(repair=True)
    assert found.code == "wrong-digest"
    assert f"first in bytes 0 to {BLOCK}." in found.message
    assert installed.blob.read_bytes() == spoilt


def test_damage_on_the_way_changes_nothing(installed: Installed) -> None:
    spoilt = installed.spoil(5_000_000)
    installed.bench.hub.fault = lambda request: Fault(damage=9) if request.server == "cdn" else None
    assert installed.finding(repair=True).code == "wrong-digest"
    assert installed.blob.read_bytes() == spoilt


def test_the_end_of_a_cut_blob_that_the_hub_has_not_is_not_left_behind(
    installed: Installed,
) -> None:
    cut = installed.right[:2_000_000]
    installed.blob.write_bytes(cut)
    evil(installed)
    assert installed.finding(repair=True).code == "wrong-size"
    assert installed.blob.read_bytes() == cut


def test_shards_that_do_not_merge_any_more_change_nothing(installed: Installed) -> None:
    spoilt = installed.spoil(0)
    for path in installed.bench.shards:
        data = bytearray(path.read_bytes())
        data[:4] = b"what"
        path.write_bytes(data)
    found = installed.finding(repair=True)
    assert "does not begin with GGUF" in found.hint
    assert installed.blob.read_bytes() == spoilt


class TestForged:
    """Whoever can write the ledger can make a repair fail, but not write a wrong byte."""

    def forge(self, installed: Installed) -> None:
        """Let the Hub send other bytes, and every prefix but the last be theirs."""
        evil(installed)
        wrong = bytearray(installed.right)
        for span in installed.entry.spans:
            shard = installed.bench.shards[span.file].read_bytes()
            wrong[span.target : span.target + span.size] = shard[span.source :][: span.size]
        assert wrong != installed.right
        last = installed.entry.prefixes[-1]
        installed.change_entry(prefixes=(*prefixes(bytes(wrong))[:-1], last))

    def test_prefixes_of_other_bytes_with_a_hub_that_has_them(self, installed: Installed) -> None:
        spoilt = installed.spoil(9_000_000)
        self.forge(installed)
        before = installed.bench.hub.bytes_sent
        found = installed.finding(repair=True)
        assert found.code == "wrong-digest"
        assert installed.bench.hub.bytes_sent > before, "the forgery was not even tried"
        assert installed.blob.read_bytes() == spoilt
        assert not installed.leftovers()

    def test_the_same_on_a_right_blob_leaves_it_right(self, installed: Installed) -> None:
        self.forge(installed)
        report = installed.check(repair=True)
        assert (report.right, report.mended) == (True, 0)
        assert installed.blob.read_bytes() == installed.right

    @pytest.mark.parametrize("block", [1, 7, BLOCK // 2, BLOCK * 2, 2**62])
    def test_another_block_size(self, block: int, installed: Installed) -> None:
        spoilt = installed.spoil(3)
        installed.change_entry(block=block)
        installed.check(repair=True)
        assert installed.blob.read_bytes() == spoilt

    @pytest.mark.parametrize("change", [-1, 1, -(2**20), 2**50])
    def test_another_size(self, change: int, installed: Installed) -> None:
        spoilt = installed.spoil(3)
        installed.change_entry(size=installed.entry.size + change)
        assert not installed.check(repair=True).right
        assert installed.blob.read_bytes() == spoilt
        installed.blob.write_bytes(installed.right)
        assert installed.check(repair=True).right
        assert installed.blob.read_bytes() == installed.right

    @pytest.mark.parametrize(
        "spans",
        [
            (),
            (Span(9, 0, 0, 100),),
            (Span(0, 0, 2**60, 100),),
            (Span(0, 2**60, 0, 100),),
            (Span(0, 0, 0, 2**60),),
            (Span(0, 0, 0, 600_000), Span(0, 0, 1, 600_000)),
            (Span(1, 0, 0, 600_000),),
        ],
    )
    def test_other_spans(self, spans: tuple[Span, ...], installed: Installed) -> None:
        spoilt = installed.spoil(3)
        installed.change_entry(spans=spans)
        assert not installed.check(repair=True).right
        assert installed.blob.read_bytes() == spoilt

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"repository": "no/such"}, DsollamaError),
            ({"repository": "../.."}, UsageError),
            ({"commit": "1" * 40}, TransferError),
            ({"sources": "paths"}, DsollamaError),
        ],
    )
    def test_another_origin(
        self, changes: dict[str, object], error: type[Exception], installed: Installed
    ) -> None:
        spoilt = installed.spoil(3)
        if changes.get("sources") == "paths":
            paths = tuple(
                LedgerFile("../../etc/passwd", each.size, each.sha256)
                for each in installed.entry.sources
            )
            changes = {"sources": paths}
        installed.change_entry(**changes)
        with pytest.raises(error):
            installed.check(repair=True)
        assert installed.blob.read_bytes() == spoilt
        assert not installed.leftovers()

    def test_an_address_that_the_user_did_not_choose_gets_no_token(
        self, installed: Installed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub = installed.bench.hub
        for endpoint, told in (("http://127.0.0.1:1", False), (hub.endpoint, True)):
            installed.spoil(3)
            hub.requests.clear()
            assert installed.check(repair=True, endpoint=endpoint).right
            told_now = [r for r in hub.requests if "hf_secret" in str(r.headers)]
            assert bool(told_now) == told, endpoint
            assert hub.requests


def test_no_hub_is_an_error_and_nothing_is_written(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = installed.spoil(5_000_000)
    with pytest.raises(HubOfflineError):
        installed.check(repair=True, offline=True)
    monkeypatch.setattr(ranges, "MAX_FAILURES", 2)
    installed.change_entry(endpoint="http://127.0.0.1:1")
    with pytest.raises((HubUnreachableError, TransferError)):
        installed.check(repair=True)
    assert installed.blob.read_bytes() == spoilt
    assert not installed.leftovers()


def test_offline_is_exit_code_3(installed: Installed) -> None:
    installed.spoil(5_000_000)
    done = installed.command("verify", "--repair", HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert "HF_HUB_OFFLINE" in done.stderr
    installed.blob.write_bytes(installed.right)
    assert installed.command("verify", "--repair", HF_HUB_OFFLINE="1").returncode == 0


def test_a_lost_connection_is_taken_up_again(installed: Installed) -> None:
    installed.spoil(5_000_000)
    faults = iter([Fault(cut_after=1000), Fault(status=503)])
    installed.bench.hub.fault = lambda request: (
        next(faults, None) if request.server == "cdn" else None
    )
    assert installed.check(repair=True).right
    assert installed.blob.read_bytes() == installed.right


def test_two_repairs_of_a_blob_do_not_meet(installed: Installed) -> None:
    spoilt = installed.spoil(5_000_000)
    folder = installed.store.own / "repair"
    folder.mkdir()
    lock = FileLock(folder / f"{installed.digest.removeprefix('sha256:')}.lock")
    with lock, pytest.raises(StoreBusyError):
        installed.check(repair=True)
    assert installed.blob.read_bytes() == spoilt
    assert installed.check(repair=True).right


def test_a_blob_that_grew_while_it_was_read_is_left_to_who_mends_it(installed: Installed) -> None:
    """Another repair has ended between our reading and our lock."""
    installed.blob.write_bytes(installed.right[:5_000_000])

    plan = plan_check(installed.bench.settings(), [], repair=True)

    def listen(event: object) -> None:
        if "missing, getting it" in getattr(event, "text", ""):
            installed.blob.write_bytes(installed.right)

    with pytest.raises(StoreBusyError):
        check(plan, listen)
    assert installed.blob.read_bytes() == installed.right


def test_a_repair_that_stops_leaves_what_is_right_and_the_next_one_goes_on(
    installed: Installed,
) -> None:
    """It stops at the third block behind the cut: two are kept, and no part of the third."""
    cut = 5 * BLOCK
    installed.blob.write_bytes(installed.right[:cut])
    asked: list[str] = []

    def stop(request: Request) -> Fault | None:
        if request.server == "cdn":
            asked.append(request.path)
        return Fault(status=400) if len(asked) == 3 else None

    installed.bench.hub.fault = stop
    with pytest.raises(TransferError):
        installed.check(repair=True)
    assert installed.blob.read_bytes() == installed.right[: cut + 2 * BLOCK]
    installed.bench.hub.fault = lambda _request: None
    before = installed.bench.hub.bytes_sent
    assert installed.check(repair=True).right
    sent = installed.bench.hub.bytes_sent - before
    assert sent == len(installed.right) - cut - 2 * BLOCK


def test_a_store_that_cannot_be_written_is_said_before_the_download(
    installed: Installed,
) -> None:
    installed.spoil(5_000_000)
    (installed.store.own / "repair").write_text("a file where a folder has to be")
    before = installed.bench.hub.bytes_sent
    done = installed.command("verify", "--repair")
    assert done.returncode == 5
    assert "cannot be written" in done.stderr
    assert installed.bench.hub.bytes_sent == before


def test_who_reads_the_blob_meanwhile_sees_only_right_bytes_come(installed: Installed) -> None:
    """The same file is mended, not another in its place: an Ollama that has it open goes on."""
    installed.spoil(5_000_000)
    inode = installed.blob.stat().st_ino
    wrong: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with installed.blob.open("rb") as file:
            while not done.is_set():
                file.seek(4_900_000)
                seen = file.read(200_000)
                good = installed.right[4_900_000:5_100_000]
                differ = [i for i in range(200_000) if seen[i] != good[i]] if seen != good else []
                wrong.extend(each for each in differ if each != 100_000)

    thread = threading.Thread(target=watch)
    thread.start()
    assert installed.check(repair=True).right
    done.set()
    thread.join()
    assert not wrong
    assert installed.blob.stat().st_ino == inode


@pytest.mark.engines
def test_the_repaired_blob_answers_in_the_real_ollama(
    installed: Installed, ollama_program: Path, tmp_path: Path
) -> None:
    import requests

    from dsollama.testing.tiny_model import ANSWER_TEXT

    installed.spoil(2, 12_000, 5_000_000, -7)
    (tmp_path / "ollama-home").mkdir()
    environment = private_environment(
        tmp_path / "ollama-home", installed.bench.store, free_port(), os.environ
    )
    name = str(installed.store.models()[0].name)
    body = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "stream": False}
    with private_ollama(ollama_program, environment, tmp_path / "log") as address:
        before = requests.post(f"{address}/api/chat", json=body, timeout=60)
        assert before.status_code != 200, "the damage did no harm, so the repair proves nothing"
        assert installed.check(repair=True).right
        after = requests.post(f"{address}/api/chat", json=body, timeout=60)
    assert after.status_code == 200, after.text
    assert after.json()["message"]["content"] == ANSWER_TEXT


def test_a_model_of_many_shards_with_an_empty_first_is_mended(
    shards: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """As Unsloth's newer uploads: shard 1 has the key-values and no tensor, so no span."""
    folder = tmp_path / "hub"
    folder.mkdir()
    paths = [Path(shutil.copy(path, folder)) for path in shards(15, first_empty=True)]
    with LoopbackHub({TERMINUS: make_repository(paths)}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", paths)
        layout = bench.plan().layout
        assert layout is not None
        done = bench.install()
        installed = Installed(bench, done.digest, b"", layout)
        installed.right = installed.blob.read_bytes()
        block = 4096
        installed.change_entry(block=block, prefixes=prefixes(installed.right, block))
        at = [0, len(layout.header) - 1, *(span.target for span in layout.spans)]
        installed.spoil(*at)
        before = hub.bytes_sent
        report = installed.check(repair=True)
        assert report.right
        assert hashlib.sha256(installed.blob.read_bytes()).hexdigest() in done.digest
        assert len(report.blobs[-1].mended) == len({place // block for place in at})
        assert hub.bytes_sent - before < len(installed.right) / 10
