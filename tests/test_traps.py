"""Every command, run by root in a store of another user's that is full of traps, catches nothing.

Beside the store lie the same files once more, root's: secret ones with a mark in them, and open
ones. Each trap leads to one of them, or to a free name in a folder of root's. After each command
everything beside the store must be as it was (bytes, modes, owners, times, names), and the mark may
stand in no output and in no file that was made.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dsollama.cli.app import app
from dsollama.gguf import encode as gg
from dsollama.testing.loopback_hub import Fault, HubRepository, LoopbackHub, Request
from dsollama.testing.tiny_model import TinyModel, TinyTensor, write_shards
from traps.laid import FOLDERS, KINDS, MARK, OWNER, ROTATED, SETS, Roots, Trap, groups, lay

from conftest import ROOT, TERMINUS, public_folder

HERE, OTHER = "UD-Q2_K_XL", "UD-TQ1_0"
NAME = "deepseek-v3.1-terminus"
SECONDS = 60.0
"""A guard: no command waits for anything here."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is told from the owner")

WRITING: tuple[tuple[str, ...], ...] = (
    ("install", OTHER, "--yes", "--store", "{store}"),
    ("install", OTHER, "--resume", "--yes", "--store", "{store}", "--json"),
    ("install", OTHER, "--merger", "llama-gguf-split", "--yes", "--store", "{store}"),
    ("install", OTHER, "--from-dir", "{shards}", "--yes", "--store", "{store}"),
    ("install", OTHER, "--from-dir", "{own}/shards", "--consume", "--yes", "--store", "{store}"),
    ("install", OTHER, "--from-store", "{clean}", "--yes", "--store", "{store}"),
    ("install", HERE, "--name", "other:x", "--variants", "plain", "--yes", "--store", "{store}"),
    ("install", OTHER, "--via", "api", "--staging", "{store}", "--yes"),
    ("install", HERE, "--from-store", "{store}", "--yes", "--store", "{own}/mine"),
    ("verify", "--repair", "--store", "{store}"),
    ("remove", f"{NAME}:{HERE}", "--yes", "--store", "{store}"),
    ("remove", f"{NAME}:{HERE}", "--all-variants", "--yes", "--json", "--store", "{store}"),
    ("gc", "--delete", "--store", "{store}"),
    ("gc", "--delete", "--all", "--yes", "--json", "--store", "{store}"),
)
READING: tuple[tuple[str, ...], ...] = (
    ("install", OTHER, "--dry-run", "--json", "--store", "{store}"),
    ("verify", "--store", "{store}"),
    ("verify", f"{NAME}:{HERE}", "--quick", "--json", "--store", "{store}"),
    ("list", "--store", "{store}"),
    ("list", "--json", "--store", "{store}"),
    ("show", f"{NAME}:{HERE}", "--store", "{store}"),
    ("show", f"{NAME}:{HERE}", "--json", "--store", "{store}"),
    ("modelfile", f"{NAME}:{HERE}", "--store", "{store}"),
    ("remove", f"{NAME}:{HERE}", "--dry-run", "--json", "--store", "{store}"),
    ("gc", "--json", "--store", "{store}"),
)
ELSEWHERE: tuple[tuple[str, ...], ...] = (
    ("chat", f"{NAME}:{HERE}", "hello"),
    ("template", "show"),
    ("template", "render", "{messages}"),
    ("verify", "--prompts", f"{NAME}:{HERE}"),
)
"""They read no store: the first and the last ask a running Ollama."""

SOME = tuple(WRITING[number] for number in (0, 2, 4, 6, 7, 9, 11, 13))
"""One of each kind."""

RACED = tuple(WRITING[number] for number in (0, 2, 9, 11, 13))
"""For folders: fewer, since little is behind them."""

NOT_RUN = {"demo": "it works in a new folder of its own, which it deletes"}
NO_FILES = {
    "install": {"--model", "--revision", "--from-url", "--force", "--help"},
    "verify": {"--model", "--help"},
    "remove": {"--help"},
    "gc": {"--help"},
    "list": {"--help"},
    "show": {"--help"},
    "modelfile": {"--variant", "--from", "--help"},
    "chat": {"--think", "--no-think", "--system", "--help"},
    "template show": {"--model", "--variant", "--engine", "--help"},
    "template render": {
        "--model", "--engine", "--think", "--no-think", "--tools", "--name", "--url", "--help",
    },
}  # fmt: skip
"""Options that neither name a file or folder of a store nor change what is done with its files."""


@dataclass(frozen=True)
class World:
    """What all tests start from.

    Attributes:
        top: a folder of root's that everybody can enter.
        base: a store of the owner's: one model, damaged, and one install that has stopped.
        places: the places of that store by a short name.
        runner: runs commands.
    """

    top: Path
    base: Path
    places: dict[str, str]
    runner: subprocess.Popen[str]

    def run(self, argv: Sequence[str], secret: Path) -> tuple[int | None, str]:
        """Run a command; return its exit code, None where it hangs, and all that it says."""
        out = self.top / "closed" / "out"
        wanted = {"argv": list(argv), "out": str(out), "fd9": str(secret), "seconds": SECONDS}
        assert self.runner.stdin
        assert self.runner.stdout
        self.runner.stdin.write(json.dumps(wanted) + "\n")
        self.runner.stdin.flush()
        return json.loads(self.runner.stdout.readline()), out.read_text(errors="replace")


def small_model(seed: int) -> TinyModel:
    """A model that no engine loads: its tensors are as small as files need to be."""
    size = 2**13
    data = hashlib.shake_256(bytes([seed])).digest(4 * size)
    tensors = tuple(
        TinyTensor(f"blk.{number}.weight", (size,), 0, lambda: iter([data])) for number in range(3)
    )
    kinds = (("general.architecture", gg.STRING, "deepseek2"), ("general.file_type", gg.UINT32, 10))
    return TinyModel(tuple(gg.encode_key_value(*each) for each in kinds), tensors)


class _Ollama(http.server.BaseHTTPRequestHandler):
    """An Ollama that says its version and lists nothing; stands in for one that registers."""

    def do_GET(self) -> None:
        known = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": []}}
        self._answer(200 if self.path in known else 404, known.get(self.path, {"error": "no"}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(500, {"error": "no"})

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def quiet_ollama() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ollama) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def running(top: Path, hub: str, ollama: str) -> Iterator[subprocess.Popen[str]]:
    """Start the runner; root's umask is a careless one, so that only the rules keep a secret."""
    (top / "closed").mkdir(mode=0o700)
    merger = top / "llama-gguf-split"
    if (ROOT / "llama.cpp" / merger.name).is_file():
        shutil.copy(ROOT / "llama.cpp" / merger.name, merger)  # to where the owner can go
    else:
        merger.write_text('#!/bin/sh\ncp "$2" "$3"\n')  # stands in for it: writes some file
        merger.chmod(0o755)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    environment = kept | {
        "HOME": str(top / "closed"),
        "HF_HOME": str(top / "closed" / "hf"),
        "HF_ENDPOINT": hub,
        "OLLAMA_HOST": ollama,
        "LLAMA_GGUF_SPLIT": str(merger),
        "DSOLLAMA_MAX_WAIT": "0.1",
        "DSOLLAMA_CONNECTIONS": "2",
        "TMPDIR": str(top / "closed"),
    }
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "traps" / "runner.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=0o022,
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with public_folder() as top:
        repository = HubRepository()
        for seed, quant in enumerate((HERE, OTHER)):
            stem = f"DeepSeek-V3.1-Terminus-{quant}"
            for path in write_shards(top / "hub", stem, small_model(seed), 3):
                repository.add(f"{quant}/{path.name}", path)
        (top / "messages").write_text('[{"role": "user", "content": "hello"}]')
        shutil.copytree(top / "hub", top / "shards")
        with (
            LoopbackHub({TERMINUS: repository}) as hub,
            quiet_ollama() as ollama,
            running(top, hub.endpoint, ollama) as runner,
        ):
            made = World(top, top / "base", {}, runner)
            made.places.update(make_base(made, hub))
            yield made


def make_base(world: World, hub: LoopbackHub) -> dict[str, str]:
    """Make the store that every trap is laid in, as its owner; return its places."""
    clean, base = world.top / "clean", world.base
    base.mkdir()
    os.chown(base, *OWNER)
    succeed(world, "install", HERE, "--yes", "--store", str(base))
    for quant in (HERE, OTHER):
        succeed(world, "install", quant, "--yes", "--store", str(clean))
    keys = []
    for more in ((), ("--merger", "llama-gguf-split")):
        hub.fault = _shard_3_breaks()
        before = set((base / ".dsollama").glob("staging/*"))
        argv = ("install", OTHER, *more, "--yes", "--store", str(base))
        code, said = world.run(argv, world.top / "messages")
        assert code not in {0, 1, None}, said
        keys += [each.name for each in set((base / ".dsollama").glob("staging/*")) - before]
        hub.fault = lambda _request: None
    shutil.rmtree(base / ".dsollama" / "staging" / keys[1])  # so that there is one to go on with
    (here,) = [path.stem for path in (base / ".dsollama" / "ledger").iterdir()]
    (new,) = [path.stem for path in (clean / ".dsollama" / "ledger").iterdir() if path.stem != here]
    weights = base / "blobs" / f"sha256-{here}"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)  # so that there is something to repair
    return places_of(base, here, new, keys)


def _shard_3_breaks() -> Callable[[Request], Fault | None]:
    """Let only its header come."""
    asked: list[Request] = []

    def fault(request: Request) -> Fault | None:
        if request.server == "cdn" and f"{OTHER}-00003" in request.path:
            asked.append(request)
            return Fault(status=403) if len(asked) > 1 else None
        return None

    return fault


def succeed(world: World, *argv: str) -> None:
    code, said = world.run(argv, world.top / "messages")
    assert code == 0, said


def places_of(base: Path, here: str, new: str, keys: Sequence[str]) -> dict[str, str]:
    host = "registry.ollama.ai"
    model = f"{host}/library/{NAME}"
    key, other = (f".dsollama/staging/{each}" for each in keys)
    manifest = json.loads((base / "manifests" / model / HERE).read_text())
    kinds = {each["mediaType"].rsplit(".", 1)[-1]: each["digest"] for each in manifest["layers"]}
    return {
        "weights": f"blobs/sha256-{here}",
        "config": f"blobs/{manifest['config']['digest'].replace(':', '-')}",
        "template": f"blobs/{kinds['template'].replace(':', '-')}",
        "new blob": f"blobs/sha256-{new}",
        "manifest": f"manifests/{model}/{HERE}",
        "new manifest": f"manifests/{model}/{OTHER}",
        "modelfile": f".dsollama/modelfiles/{model}/{HERE}",
        "modelfile of the new name": f".dsollama/modelfiles/{model}/{OTHER}",
        "ledger": f".dsollama/ledger/{here}.json",
        "ledger of the new blob": f".dsollama/ledger/{new}.json",
        "ledger.tmp": f".dsollama/tmp/{new}.json",
        "removal": ".dsollama/removing/1-ab.json",
        "repair lock": f".dsollama/repair/{here}.lock",
        "lock": ".dsollama/lock",
        "merged": f"{key}/merged.gguf",
        "journal": f"{key}/journal.json",
        "journal.new": f"{key}/journal.json.new",
        "progress": f"{key}/progress.json",
        "progress.new": f"{key}/progress.json.new",
        "record": f"{key}/install.json",
        "record.new": f"{key}/install.json.new",
        "consumed.new": f"{key}/consumed.new",
        "staging lock": f"{key}/lock",
        "other merged": f"{other}/merged.gguf",
        "other lock": f"{other}/lock",
        "shard": f"{other}/model-00001-of-00003.gguf",
        "blobs": "blobs",
        "manifests": "manifests",
        "host": f"manifests/{host}",
        "library": f"manifests/{host}/library",
        "model": f"manifests/{model}",
        ".dsollama": ".dsollama",
        "tmp": ".dsollama/tmp",
        "ledger folder": ".dsollama/ledger",
        "modelfiles": ".dsollama/modelfiles",
        "modelfiles of the host": f".dsollama/modelfiles/{host}",
        "removing": ".dsollama/removing",
        "repair": ".dsollama/repair",
        "staging": ".dsollama/staging",
        "key": key,
        "other key": other,
    }


def make_roots(world: World, folder: Path) -> Roots:
    """Make what is root's: the store's files once more, secret and open, and an empty folder."""
    roots = Roots(folder)
    roots.new.mkdir(parents=True)
    for mirror, mode in ((roots.secret, 0o600), (roots.open, 0o644)):
        subprocess.run(["cp", "-a", world.base, mirror], check=True)
        for path in (mirror, *mirror.rglob("*")):
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() else mode)
    for path in roots.secret.rglob("*"):
        if path.is_file():
            path.write_bytes(marked(path.read_bytes()))
    removal = roots.secret / world.places["removal"]
    removal.parent.mkdir(exist_ok=True)
    removal.write_text(json.dumps({"names": [f"{NAME}:{HERE}", MARK], "digests": []}))
    removal.chmod(0o600)
    return roots


def marked(data: bytes) -> bytes:
    """Return a file's bytes with the mark in them, where a command would show or copy it."""
    try:
        value = json.loads(data)
    except ValueError:
        return (
            data[: -len(MARK)] + MARK.encode() if data.startswith(b"GGUF") else data + MARK.encode()
        )
    if not isinstance(value, dict):
        return data
    for key in ("model_family", "model_type", "repository", "boot", "name", "system"):
        if key in value:
            value[key] = f"o/{MARK}"
    for key in ("layers", "stop", "names"):
        if key in value:
            layer = {"mediaType": MARK, "digest": f"sha256:{'0' * 64}", "size": 1}
            value[key] = [*value[key], layer if key == "layers" else MARK]
    return json.dumps(value).encode()


def outside(world: World, roots: Roots) -> dict[str, Any]:
    """Everything beside the store that must stay: folders and files, with all that ls shows."""
    tops = (roots.folder, world.top / "shards", world.top / "clean", world.base)
    found: dict[str, Any] = {}
    for path in (each for top in tops for each in (top, *top.rglob("*"))):
        is_root = path.is_relative_to(roots.folder)
        seen = path.lstat()
        data = path.read_bytes() if is_root and stat.S_ISREG(seen.st_mode) else b""
        # The locks of the clean store are taken by root, for whom it is.
        times = seen.st_mtime_ns if not stat.S_ISDIR(seen.st_mode) or is_root else 0
        found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_gid, times, seen.st_size, data)
    return found


def leaks(store: Path, roots: Roots) -> list[str]:
    """Files below a folder in which the mark stands, but for the secrets themselves."""
    own = {path.stat().st_ino for path in roots.folder.rglob("*") if path.is_file()}
    found = []
    for folder, _, names in os.walk(store):
        for name in names:
            path = Path(folder, name)
            seen = path.lstat()
            plain = stat.S_ISREG(seen.st_mode) and seen.st_ino not in own
            if plain and MARK.encode() in path.read_bytes():
                found.append(f"the mark is in {path}")
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changed = {each for each in {*before, *after} if before.get(each) != after.get(each)}
    return [f"changed, made or deleted: {each}" for each in sorted(changed)]


def caught(
    world: World, command: Sequence[str], traps: Sequence[Trap], roots: Roots, own: Path
) -> list[str]:
    """Run a command in a fresh store with traps; return what it did that it may not do."""
    store = own / "models"
    own.mkdir()
    subprocess.run(["cp", "-a", world.base, store], check=True)
    if "--consume" in command:
        shutil.copytree(world.top / "shards", own / "shards")
    for trap in traps:
        lay(trap, store, roots)
    before = outside(world, roots)
    code, said = world.run(filled(command, world, own), secret_of(roots))
    found = differences(before, outside(world, roots))
    if code is None:
        found.append("it does not end")
    if code == 99 or "dsollama has a bug" in said:
        found.append(said.strip()[-300:])
    if MARK in said:
        found.append("the mark is in what it says")
    found += leaks(own, roots)
    shutil.rmtree(own)
    return [f"`{' '.join(command)}`: {each}" for each in found]


def secret_of(roots: Roots) -> Path:
    return next(path for path in sorted(roots.secret.rglob("*")) if path.is_file())


def filled(command: Sequence[str], world: World, own: Path) -> list[str]:
    return [
        each.format(
            store=own / "models",
            own=own,
            shards=world.top / "shards",
            clean=world.top / "clean",
            messages=world.top / "messages",
        )
        for each in command
    ]


def group_names() -> list[str]:
    """The names of the groups; their places are known only with the store."""
    nothing: dict[str, str] = {each: each for inside in SETS.values() for each in inside}
    nothing |= {each: each for inside in (*FOLDERS, *ROTATED.values()) for each in inside}
    return list(groups(nothing))


@pytest.mark.parametrize("group", group_names())
def test_a_trap_catches_nothing(group: str, world: World) -> None:
    traps = groups(world.places)[group]
    folder = world.top / group.replace(" ", "-")
    folder.mkdir()
    roots = make_roots(world, folder / "roots")
    found = []
    for number, command in enumerate(commands_for(traps, world)):
        found += caught(world, command, traps, roots, folder / str(number))
    shutil.rmtree(folder)
    assert not found, "\n".join(found)


def commands_for(traps: Sequence[Trap], world: World) -> Sequence[Sequence[str]]:
    """All of them where a trap leads to a secret; some where it is of another kind."""
    kind, is_folder = traps[0].kind, (world.base / traps[0].place).is_dir()
    if is_folder:
        return (*RACED, *READING[::2]) if kind == "secret" else RACED
    if kind == "secret":
        return (*WRITING, *READING)
    if kind in {"open", "hard open", "relative", "dangling"}:
        return SOME  # they give no secret away
    return (*SOME, *READING[1:9:3])


def test_there_are_many_traps(world: World) -> None:
    laid = {trap for traps in groups(world.places).values() for trap in traps}
    assert len(laid) >= 40
    assert {trap.kind for trap in laid} == set(KINDS)
    assert {trap.place for trap in laid} == set(world.places.values())


def all_commands() -> dict[str, set[str]]:
    """The options of each command that `dsollama --help` leads to."""
    found: dict[str, set[str]] = {}

    def look(command: Any, name: str) -> None:
        if hasattr(command, "commands"):
            for each, below in command.commands.items():
                look(below, f"{name} {each}".strip())
        else:
            found[name] = {
                max(opts, key=len)
                for parameter in command.params
                for opts in (parameter.opts, parameter.secondary_opts)
                if opts and opts[0].startswith("-")
            }

    look(typer.main.get_command(app), "")
    return found


def test_no_command_and_no_option_is_left_out() -> None:
    """A new one has to be run with the traps, or be said to touch no file of a store."""
    run = [*WRITING, *READING, *ELSEWHERE]
    for name, options in all_commands().items():
        words = tuple(name.split())
        tried = {each for argv in run if argv[: len(words)] == words for each in argv}
        assert tried or name in NOT_RUN, f"`{name}` is not run with the traps"
        left = set() if name in NOT_RUN else options - tried - NO_FILES[name]
        assert not left, f"{left} of `{name}` are not run with the traps"


def test_what_asks_ollama_touches_no_store(world: World) -> None:
    folder = world.top / "elsewhere"
    folder.mkdir()
    roots = make_roots(world, folder / "roots")
    traps = groups(world.places)["secret-weights"]
    found = []
    for number, command in enumerate(ELSEWHERE):
        found += caught(world, command, traps, roots, folder / str(number))
    shutil.rmtree(folder)
    assert not found, "\n".join(found)


EXCHANGED = (
    "tmp", "merged", "key", "staging", "blobs", "weights", "model", "manifest", ".dsollama",
    "ledger folder", "modelfiles", "shard", "other merged",
)  # fmt: skip
SWAP = """
import ctypes, os, sys
os.setgroups([]); os.setgid(4322); os.setuid(4321)
exchange = ctypes.CDLL(None, use_errno=True).renameat2
one, other = (os.fsencode(each) for each in sys.argv[1:3])
print("begun", flush=True)
while True:
    exchange(-100, one, -100, other, 2)
"""


@contextmanager
def exchanging(path: Path, trap: Path) -> Iterator[None]:
    """Let a process of the owner's exchange two names as fast as it can."""
    with subprocess.Popen(
        [sys.executable, "-c", SWAP, str(path), str(trap)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("place", EXCHANGED)
def test_what_is_exchanged_in_a_loop_catches_nothing(place: str, world: World) -> None:
    at = world.places[place]
    # What stands there takes turns with a link to what is root's.
    kind = "open"
    folder = world.top / f"loop-{place}-{kind}".replace(" ", "-")
    folder.mkdir()
    roots = make_roots(world, folder / "roots")
    found = []
    for number, command in enumerate(RACED):
        own = folder / str(number)
        store = own / "models"
        own.mkdir()
        subprocess.run(["cp", "-a", world.base, store], check=True)
        if not (store / at).exists():
            lay(Trap("folder" if place == "other key" else "file", at), store, roots)
        (own / "laid").mkdir()
        lay(Trap(kind, at), own / "laid", roots)
        beside = (store / at).with_name("laid")
        (own / "laid" / at).rename(beside)
        before = outside(world, roots)
        with exchanging(store / at, beside):
            code, said = world.run(filled(command, world, own), secret_of(roots))
        found += [
            f"`{' '.join(command)}`: {each}" for each in differences(before, outside(world, roots))
        ]
        assert code is not None, f"`{' '.join(command)}` does not end"
        assert code != 99, said
        shutil.rmtree(own)
    shutil.rmtree(folder)
    assert not found, "\n".join(found)
