"""Installing from the loopback Hub: bytes, manifests, names, resuming."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dsollama.errors import CorruptShardError, InterruptedByUserError, StoreBusyError
from dsollama.events import BytesMoved, Event, Noted, ShardVerified
from dsollama.install.request import Merger
from dsollama.install.to_store import execute
from dsollama.manifest.names import parse_name
from dsollama.store.store import Store
from dsollama.testing.loopback_hub import Fault, HubRepository, LoopbackHub, Request
from dsollama.transfer.journal import claimed_bytes

from conftest import STEM, TERMINUS, Bench, make_repository


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.engines
@pytest.mark.parametrize(
    ("count", "first_empty"), [(1, False), (3, False), (9, False), (15, False), (15, True)]
)
def test_the_blob_is_what_llama_gguf_split_writes(
    count: int,
    first_empty: bool,
    shards: Callable[..., list[Path]],
    gguf_split: Path,
    tmp_path: Path,
) -> None:
    paths = shards(count, first_empty=first_empty)
    merged = tmp_path / "merged.gguf"
    subprocess.run([gguf_split, "--merge", paths[0], merged], check=True, capture_output=True)
    with LoopbackHub({TERMINUS: make_repository(paths)}) as hub:
        for merger in Merger:
            bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / merger, paths)
            settings = bench.settings(gguf_split=str(gguf_split))
            done = bench.install(settings=settings, merger=merger)
            blob = Store(bench.store).blob_path(done.digest)
            assert done.digest == f"sha256:{sha256(merged)}"
            assert blob.read_bytes() == merged.read_bytes()
            assert not bench.staged()
            verified = [event for event in bench.events if isinstance(event, ShardVerified)]
            assert sorted(each.shard for each in verified) == list(range(1, count + 1))


@pytest.mark.engines
def test_shards_cut_by_the_real_program_merge_to_the_same_bytes(
    single: Path, gguf_split: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    cut = [gguf_split, "--split", "--split-max-tensors", "7", "--no-tensor-first-split"]
    subprocess.run([*cut, single, folder / STEM], check=True, capture_output=True)
    paths = sorted(folder.iterdir())
    merged = tmp_path / "merged.gguf"
    subprocess.run([gguf_split, "--merge", paths[0], merged], check=True, capture_output=True)
    assert len(paths) > 5
    with LoopbackHub({TERMINUS: make_repository(paths)}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], tmp_path / "models", paths)
        assert bench.install().digest == f"sha256:{sha256(merged)}"


def test_a_single_file_takes_the_same_road(single: Path, tmp_path: Path) -> None:
    repository = HubRepository()
    repository.add(single.name, single)
    with LoopbackHub({TERMINUS: repository}) as hub:
        bench = Bench(hub, repository, tmp_path / "models", [single])
        done = bench.install("tq1_0")
    assert done.digest == f"sha256:{sha256(single)}"
    assert done.names[0] == "deepseek-v3.1-terminus:UD-TQ1_0"
    assert Store(bench.store).blob_path(done.digest).read_bytes() == single.read_bytes()


def test_both_variants_share_the_weights_and_differ_in_the_template_alone(bench: Bench) -> None:
    done = bench.install()
    plain, thinking = (Store(bench.store).model(parse_name(name)) for name in done.names)
    assert done.names == (
        "deepseek-v3.1-terminus:UD-Q2_K_XL",
        "deepseek-v3.1-terminus:UD-Q2_K_XL-thinking",
    )
    assert plain.layers[0].digest == thinking.layers[0].digest == done.digest
    assert [each.media_type for each in plain.layers] == [
        "application/vnd.ollama.image.model",
        "application/vnd.ollama.image.template",
        "application/vnd.ollama.image.params",
    ]
    assert plain.layers[1].digest != thinking.layers[1].digest
    assert plain.layers[2] == thinking.layers[2]
    params = json.loads(Store(bench.store).read_blob(plain.layers[2].digest))
    assert (params["temperature"], params["top_p"], params["min_p"]) == (0.6, 0.95, 0.01)


def test_the_kept_modelfile_says_what_the_manifest_says(bench: Bench) -> None:
    done = bench.install()
    kept = bench.store / ".dsollama/modelfiles/registry.ollama.ai/library/deepseek-v3.1-terminus"
    text = (kept / "UD-Q2_K_XL").read_text()
    blob = Store(bench.store).blob_path(done.digest)
    assert f"FROM {blob}\n" in text
    assert "PARAMETER temperature 0.6\n" in text
    template = Store(bench.store).model(parse_name(done.names[0])).layers[1]
    assert Store(bench.store).read_blob(template.digest).decode() in text


def test_an_unknown_repository_keeps_its_own_template(bench: Bench) -> None:
    bench.hub.repositories["someone/Else-GGUF"] = bench.repository
    done = bench.install("hf.co/someone/Else-GGUF:q2_k_xl")
    assert done.names == ("hf.co/someone/Else-GGUF:UD-Q2_K_XL",)
    model = Store(bench.store).model(parse_name(done.names[0]))
    assert [each.media_type for each in model.layers] == ["application/vnd.ollama.image.model"]


def test_a_name_and_variants_can_be_chosen(bench: Bench) -> None:
    done = bench.install(name="team/mine:v1", variants=("thinking",))
    assert done.names == ("team/mine:v1-thinking",)
    assert (bench.store / "manifests/registry.ollama.ai/team/mine/v1-thinking").is_file()
    assert bench.install(name="mine").names[0] == "mine:UD-Q2_K_XL"


def test_a_dry_plan_writes_nothing_and_is_complete(bench: Bench) -> None:
    plan = bench.plan()
    assert not bench.store.exists()
    shown = json.loads(json.dumps(plan.to_json()))
    assert shown["commit"] == bench.repository.commit
    assert [each["sha256"] for each in shown["shards"]] == [sha256(p) for p in bench.shards]
    assert shown["bytes_to_move"] == sum(path.stat().st_size for path in bench.shards)
    assert len(shown["models"]) == 2
    done = execute(plan, bench.events.append, 2)
    header = Store(bench.store).blob_path(done.digest).read_bytes()[: len(plan.layout.header)]
    assert hashlib.sha256(header).hexdigest() == shown["merged_header_sha256"]
    assert done.size == shown["size"]


def test_what_is_installed_already_moves_no_byte(bench: Bench) -> None:
    first = bench.install()
    before, sent = bench.files(), bench.hub.bytes_sent
    again = bench.install()
    assert (again.digest, again.moved) == (first.digest, 0)
    assert bench.files() == before
    headers = bench.hub.bytes_sent - sent
    assert headers < sum(path.stat().st_size for path in bench.shards) / 3


def test_ctrl_c_keeps_what_came_and_a_rerun_goes_on(bench: Bench) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == 1:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError, match="kept"):
        execute(bench.plan(), stop, connections=1)
    assert bench.files() == {}
    kept = claimed_bytes(bench.staged()[0])
    assert kept >= bench.shards[0].stat().st_size - 100_000
    plan = bench.plan()
    assert plan.state.resumed == kept
    done = execute(plan, bench.events.append, connections=4)
    assert done.resumed == kept
    assert done.moved == sum(span.size for span in plan.layout.spans) - kept
    assert not bench.staged()


def test_a_tampered_staging_file_is_noticed_and_fetched_again(bench: Bench) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUserError):
        execute(bench.plan(), stop, connections=1)
    staged = bench.staged()[0] / "merged.gguf"
    with staged.open("r+b") as file:
        file.seek(bench.plan().layout.spans[1].target + 1000)
        file.write(b"spoilt")
    done = bench.install()
    assert done.digest == f"sha256:{sha256(Store(bench.store).blob_path(done.digest))}"
    assert any(isinstance(event, Noted) and "wrong" in event.text for event in bench.events)


def test_progress_names_bytes_and_shards(bench: Bench) -> None:
    bench.install()
    moved = [event for event in bench.events if isinstance(event, BytesMoved)]
    assert moved[-1].done == moved[-1].total
    assert moved[-1].shards == 3
    assert [each.done for each in moved] == sorted(each.done for each in moved)


def test_broken_connections_are_taken_up_where_they_broke(bench: Bench) -> None:
    broken: list[Request] = []

    def fault(request: Request) -> Fault | None:
        if request.server == "cdn" and len(broken) < 3 and request.headers.get("Range"):
            broken.append(request)
            return Fault(cut_after=10_000)
        return None

    plan = bench.plan()
    bench.hub.fault = fault
    done = execute(plan, bench.events.append, connections=2)
    assert done.digest == f"sha256:{sha256(Store(bench.store).blob_path(done.digest))}"
    assert len(broken) == 3
    assert sum(isinstance(event, Noted) for event in bench.events) == 3


def test_an_expired_address_is_resolved_again(bench: Bench) -> None:
    plan = bench.plan()
    refused: list[Request] = []

    def fault(request: Request) -> Fault | None:
        if request.server == "cdn" and not refused:
            refused.append(request)
            return Fault(status=403)
        return None

    bench.hub.fault = fault
    execute(plan, bench.events.append, connections=1)
    assert len(refused) == 1


def test_the_token_goes_to_the_hub_and_never_to_the_cdn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    bench.repository.gated, bench.repository.token = True, "hf_secret"
    bench.install()
    seen = {"hub": 0, "cdn": 0}
    for request in bench.hub.requests:
        seen[request.server] += "hf_secret" in str(request.headers)
    assert seen["hub"] > 0
    assert seen["cdn"] == 0


def test_a_shard_that_stays_wrong_leaves_the_store_alone_and_the_others_kept(bench: Bench) -> None:
    file = bench.repository.files[f"UD-Q2_K_XL/{bench.shards[2].name}"]
    file.sha256 = "0" * 64
    with pytest.raises(CorruptShardError, match="Shard 3 of 3"):
        bench.install()
    assert bench.files() == {}
    size = bench.shards[0].stat().st_size + bench.shards[1].stat().st_size
    assert claimed_bytes(bench.staged()[0]) > 0.9 * size


def test_two_installs_of_the_same_model_do_not_meet(bench: Bench) -> None:
    plan = bench.plan()

    def meanwhile(event: Event) -> None:
        if isinstance(event, ShardVerified) and event.shard == 1:
            with pytest.raises(StoreBusyError):
                execute(plan, lambda _event: None, connections=1)

    assert execute(plan, meanwhile, connections=1).moved


def test_another_commit_with_the_same_shards_takes_over(bench: Bench, tmp_path: Path) -> None:
    first = bench.install()
    shutil.rmtree(bench.store / "manifests")
    bench.repository.commit = "b" * 40
    again = bench.install()
    assert (again.digest, again.moved) == (first.digest, 0)


def test_settings_of_the_repository_that_differ_are_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "params").write_text('{"temperature": 0.6, "top_p": 0.9, "stop": ["<｜User｜>"]}')
    (tmp_path / "template").write_text("{{ .Prompt }}")
    for name in ("params", "template"):
        bench.repository.add(name, tmp_path / name)
    notes = bench.plan().notes
    assert [note.split(";")[1].strip() for note in notes[:2]] == [
        "dsollama leaves it to Ollama",
        "dsollama sets 0.95",
    ]
    assert "a template of its own" in notes[2]
    (tmp_path / "params").write_bytes(b"[" * 5000)
    bench.repository.add("params", tmp_path / "params")
    assert "no JSON object" in bench.plan().notes[0]
    del bench.repository.files["params"], bench.repository.files["template"]
    assert bench.plan().notes == ()


def test_a_single_file_that_stays_wrong_leaves_nothing(single: Path, tmp_path: Path) -> None:
    repository = HubRepository()
    repository.add(single.name, single, sha256="0" * 64)
    with LoopbackHub({TERMINUS: repository}) as hub:
        bench = Bench(hub, repository, tmp_path / "models", [single])
        with pytest.raises(CorruptShardError, match="Shard 1 of 1"):
            bench.install("tq1_0")
    assert not bench.store.exists()
