"""Weights that get their names: killed, interrupted, refused or pruned at every step of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dsollama.ollama.private import free_port, private_environment
from dsollama.testing.loopback_hub import Fault
from faults.between import BETWEEN, STOPS
from faults.scene import RUN_SECONDS, Scene, case, download_3

NAMING = "While the weights get their names"
MODEL = "deepseek-v3.1-terminus"
LIBRARY = "manifests/registry.ollama.ai/library"
LEDGER, RECORD, BLOB = r"/ledger/", r"/registering\.json$", r"/blobs/sha256-"
FIRST, SECOND = r"/manifests/.*UD-Q2_K_XL$", r"/manifests/.*-thinking$"
DONE = r"/ledger/"
SWEEP = ("gc", "--delete", "--yes")
KILL = f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
FULL = "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"

# Python runs it at its start: the program meets its fault just before it renames to a place.
_HOOK = """
import errno, os, re, sys
def arrange(wanted, place, number, action):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event == wanted and re.search(place, str(arguments[1])):
            count += 1
            if count == number or not number:
                exec(action, {{"errno": errno, "os": os}})
    sys.addaudithook(hook)
arrange({event!r}, {place!r}, {number!r}, {action!r})
"""


def _at(
    scene: Scene, place: str, action: str, *, number: int = 1, event: str = "os.rename"
) -> None:
    """Let the program do something just before it renames a file to a place, the `number`th time.

    Args:
        scene: what is changed.
        place: a pattern of the place.
        action: what is done.
        number: 0 for every time.
        event: what it does there.
    """
    folder = scene.tmp / "hook"
    folder.mkdir(exist_ok=True)
    with (folder / "sitecustomize.py").open("a") as file:
        file.write(_HOOK.format(event=event, place=place, number=number, action=action))
    scene.environment["PYTHONPATH"] = str(folder)


def _killed(scene: Scene, place: str, *command: str, number: int = 1) -> None:
    """Kill the program at a place; then another command runs on the store."""
    _at(scene, place, KILL, number=number)

    def then(process: subprocess.Popen[bytes]) -> None:
        process.wait(RUN_SECONDS)
        done = scene.dsollama(*command)
        assert done.returncode == 0, done.stderr
        assert not (scene.own / "registering.json").exists()

    scene.during = then


def _over_old_names(scene: Scene) -> None:
    """Let both names be another model's, which `--force` replaces."""
    for tag in ("UD-Q2_K_XL", "UD-Q2_K_XL-thinking"):
        place = scene.store / LIBRARY / MODEL / tag
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene.store / LIBRARY / "earlier" / "latest", place)
    scene.arguments = (*scene.arguments, "--force")
    scene.earlier = scene.files()


def _nameless(scene: Scene) -> Path:
    """Install, take the names away again as an interrupted removal does, and let hours pass."""
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(scene.store / LIBRARY / MODEL)
    shutil.rmtree(scene.own / "modelfiles" / "registry.ollama.ai" / "library" / MODEL)
    for blob in (scene.store / "blobs").iterdir():
        os.utime(blob, (1, 1))
    return max((scene.store / "blobs").iterdir(), key=lambda path: path.stat().st_size)


@case(NAMING, "kill -9 before the first step; then `dsollama gc --delete`", exits=-9, killed=True)
def killed_before(scene: Scene) -> Iterator[None]:
    _killed(scene, LEDGER, *SWEEP)
    yield


@case(NAMING, "kill -9 before it is written down; then `dsollama gc --delete`", exits=-9,
      killed=True)  # fmt: skip
def killed_before_the_record(scene: Scene) -> Iterator[None]:
    _killed(scene, RECORD, *SWEEP)
    yield


@case(NAMING, "kill -9 before the weights are in place; then `dsollama gc --delete`", exits=-9,
      killed=True)  # fmt: skip
def killed_before_the_weights(scene: Scene) -> Iterator[None]:
    _killed(scene, BLOB, *SWEEP)
    yield


@case(NAMING, "kill -9 behind the weights; then `dsollama gc --delete`", exits=-9, killed=True)
def killed_behind_the_weights(scene: Scene) -> Iterator[None]:
    _killed(scene, BLOB, *SWEEP, number=2)
    yield


@case(NAMING, "kill -9 before the first name; then `dsollama verify --repair` of another model",
      exits=-9, killed=True)  # fmt: skip
def killed_before_the_names(scene: Scene) -> Iterator[None]:
    _killed(scene, FIRST, "verify", "--repair", "earlier")
    yield


@case(NAMING, "kill -9 between two names; then `dsollama gc --delete`", exits=-9, killed=True)
def killed_between_names(scene: Scene) -> Iterator[None]:
    _killed(scene, SECOND, *SWEEP)
    yield


@case(NAMING, "kill -9 between two names that others had; then `dsollama gc --delete`", exits=-9,
      killed=True)  # fmt: skip
def killed_between_old_names(scene: Scene) -> Iterator[None]:
    _over_old_names(scene)
    _killed(scene, SECOND, *SWEEP)
    yield


@case(NAMING, "kill -9 behind the last name; then `dsollama gc --delete`", exits=-9, killed=True)
def killed_behind_the_names(scene: Scene) -> Iterator[None]:
    _killed(scene, DONE, *SWEEP, number=2)
    yield


@case(NAMING, "kill -9 between two names for weights that are there; then `dsollama gc --delete`",
      exits=-9, killed=True)  # fmt: skip
def killed_between_more_names(scene: Scene) -> Iterator[None]:
    _nameless(scene)
    _killed(scene, SECOND, *SWEEP)
    yield


def _interrupted(scene: Scene, number: signal.Signals) -> None:
    """Send a signal twice between two names that others had."""
    _over_old_names(scene)
    send = f"os.kill(os.getpid(), {int(number)})"
    _at(scene, SECOND, f"{send}; {send}")


@case(NAMING, "Ctrl-C twice between two names that others had", exits=130, says="are installed")
def interrupted_between_names(scene: Scene) -> Iterator[None]:
    _interrupted(scene, signal.SIGINT)
    yield


@case(NAMING, "SIGTERM twice between two names that others had", exits=130, says="are installed")
def terminated_between_names(scene: Scene) -> Iterator[None]:
    _interrupted(scene, signal.SIGTERM)
    yield


@case(NAMING, "SIGHUP twice between two names that others had", exits=130, says="are installed")
def hung_up_between_names(scene: Scene) -> Iterator[None]:
    _interrupted(scene, signal.SIGHUP)
    yield


@case(NAMING, "the disk is full between two names that others had", exits=5, says="is full")
def full_between_names(scene: Scene) -> Iterator[None]:
    _over_old_names(scene)
    _at(scene, SECOND, FULL)
    yield


@case(NAMING, "the disk is full between two names, and Ctrl-C all the while", exits=5,
      says="is full")  # fmt: skip
def interrupted_while_taken_back(scene: Scene) -> Iterator[None]:
    _over_old_names(scene)
    stop = f"os.kill(os.getpid(), {int(signal.SIGINT)})"
    _at(scene, r"/manifests/", stop, number=0)
    _at(scene, SECOND, FULL)
    yield


@case(NAMING, "weights without a name are deleted while they get one")
def pruned(scene: Scene) -> Iterator[None]:
    blob = _nameless(scene)
    _at(scene, FIRST, f"os.unlink({str(blob)!r})")
    yield


@case(NAMING, "the same on a file system without hard links", exits=5,
      says="have just been removed")  # fmt: skip
def pruned_for_good(scene: Scene) -> Iterator[None]:
    blob = _nameless(scene)
    _at(scene, FIRST, f"os.unlink({str(blob)!r})")
    _at(scene, "", "raise OSError(errno.EPERM, os.strerror(errno.EPERM))", event="os.link")

    def gone(process: subprocess.Popen[bytes]) -> None:
        process.wait(RUN_SECONDS)
        scene.before = {
            name: found for name, found in scene.before.items() if name != f"blobs/{blob.name}"
        }
        scene.before_own |= scene.own_files()

    scene.during = gone
    yield


@case(NAMING, "Ollama 0.33.0 starts and prunes weights without a name while they get one")
def pruned_by_ollama(scene: Scene) -> Iterator[None]:
    """Ollama is held where it has listed the blobs and reads the manifests: one is a pipe."""
    blob = _nameless(scene)
    pipe = scene.store / LIBRARY / "held" / "latest"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    home = scene.tmp / "ollama-home"
    home.mkdir()
    environment = private_environment(home, scene.store, free_port(), os.environ)
    environment.pop("OLLAMA_NOPRUNE")
    log = (scene.tmp / "ollama.log").open("wb")
    server = subprocess.Popen(
        [scene.ollama(), "serve"], env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    scene.stack.callback(log.close)
    scene.stack.callback(server.wait)
    scene.stack.callback(server.kill)
    manifest = (scene.store / LIBRARY / "earlier" / "latest").read_bytes()
    with pipe.open("wb") as once:  # the look for damaged manifests; the next is another pipe's
        pipe.unlink()
        os.mkfifo(pipe)
        once.write(manifest)
    held = _await_reader(pipe)
    pipe.unlink()
    pipe.parent.rmdir()
    scene.environment["OLLAMA_HOST"] = environment["OLLAMA_HOST"]

    def release(process: subprocess.Popen[bytes]) -> None:
        kept = lambda: next(iter((scene.own / "tmp").glob("*")), None)  # noqa: E731
        scene.await_file(kept)
        assert process.poll() is None
        assert blob.exists()
        os.write(held, manifest)
        os.close(held)
        process.wait(RUN_SECONDS)
        assert "total unused blobs removed" in (scene.tmp / "ollama.log").read_text()

    scene.during = release
    yield


def _await_reader(pipe: Path) -> int:
    """Return the pipe, opened to write, as soon as somebody reads from it anew."""
    end = time.monotonic() + RUN_SECONDS / 2
    while time.monotonic() < end:
        try:
            handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
            continue
        os.set_blocking(handle, True)
        return handle
    raise AssertionError("Ollama does not read its manifests")


@case(BETWEEN, "`dsollama gc --delete` with a clock that is years ahead", exits=3, says=STOPS)
def swept_by_a_wrong_clock(scene: Scene) -> Iterator[None]:
    scene.on(download_3, Fault(status=503))
    yield
    code = "import time; t = time.time; time.time = lambda: t() + 1e8\n"
    code += "from dsollama.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *SWEEP],
        env=scene.bench.environment(),
        capture_output=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (scene.staging / "merged.gguf").exists()
