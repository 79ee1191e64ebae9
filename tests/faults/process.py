"""The program is stopped, or others work on the same store meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from dsollama.ollama.private import free_port, private_environment, private_ollama
from faults import wire
from faults.scene import RUN_SECONDS, Scene, case, download_3

STOPPED = "The program is stopped"
OTHERS = "Others at work on the store"
EARLIER = "earlier:latest"


@case(STOPPED, "kill -9 in the middle", exits=-9, killed=True)
def killed(scene: Scene) -> Iterator[None]:
    _signalled(scene, signal.SIGKILL)
    yield


@case(STOPPED, "Ctrl-C (SIGINT) in the middle", exits=130, says="Stopped; .* are kept")
def interrupted(scene: Scene) -> Iterator[None]:
    _signalled(scene, signal.SIGINT)
    yield


@case(STOPPED, "Ctrl-C for others, while it runs in the background (SIGINT ignored)")
def interrupted_in_the_background(scene: Scene) -> Iterator[None]:
    _signalled_and_ignored(scene, signal.SIGINT, ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"])
    yield


@case(STOPPED, "SIGTERM (systemd, kill) in the middle", exits=130, says="Stopped; .* are kept")
def terminated(scene: Scene) -> Iterator[None]:
    _signalled(scene, signal.SIGTERM)
    yield


@case(STOPPED, "SIGHUP (the terminal closes) in the middle", exits=130, says="Stopped; .* are kept")
def hung_up(scene: Scene) -> Iterator[None]:
    _signalled(scene, signal.SIGHUP)
    yield


@case(STOPPED, "SIGHUP under nohup")
def hung_up_and_ignored(scene: Scene) -> Iterator[None]:
    _signalled_and_ignored(scene, signal.SIGHUP, ["nohup"])
    yield


@case(STOPPED, "suspended (Ctrl-Z) and taken up after the connection was lost", says="try 2")
def suspended(scene: Scene) -> Iterator[None]:
    scene.on(download_3, wire.reset_after(100_000), 1)

    def suspend(process: subprocess.Popen[bytes]) -> None:
        scene.await_file(lambda: next(iter((scene.own / "staging").glob("*/merged.gguf")), None))
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)

    scene.during = suspend
    yield


@case(OTHERS, "another dsollama installs the same model", exits=5, says="Another dsollama")
def locked(scene: Scene) -> Iterator[None]:
    plan = scene.dsollama("install", "UD-Q2_K_XL", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    folder = scene.own / "staging" / scene.key()
    folder.mkdir(parents=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)
    (folder / "lock").unlink(missing_ok=True)
    folder.rmdir()


@case(OTHERS, "`dsollama gc --delete --all` in the middle")
def garbage_collected(scene: Scene) -> Iterator[None]:
    def collect() -> None:
        done = scene.dsollama("gc", "--delete", "--all", "--yes")
        assert done.returncode == 0, done.stderr

    meanwhile(scene, collect)
    yield


@case(OTHERS, "`dsollama remove` of another model in the middle")
def another_removed(scene: Scene) -> Iterator[None]:
    def remove() -> None:
        done = scene.dsollama("remove", EARLIER, "--yes")
        assert done.returncode == 0, done.stderr
        scene.before = scene.earlier = scene.files()

    meanwhile(scene, remove)
    yield


@case(OTHERS, "Ollama 0.33.0 starts and prunes in the middle")
def ollama_starts(scene: Scene) -> Iterator[None]:
    def start() -> None:
        with ollama(scene) as address:
            assert EARLIER in ollama_says(scene, address, "list")

    meanwhile(scene, start)
    yield


@case(OTHERS, "`ollama rm` of another model in the middle")
def removed_by_ollama(scene: Scene) -> Iterator[None]:
    def remove() -> None:
        with ollama(scene) as address:
            ollama_says(scene, address, "rm", EARLIER)
        scene.before = scene.earlier = scene.files()
        assert not any("earlier" in name for name in scene.before)

    meanwhile(scene, remove)
    yield


@case(OTHERS, "the model is there already")
def there_already(scene: Scene) -> Iterator[None]:
    done = scene.dsollama("install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    yield


@case(OTHERS, "nobody reads stdout any more (`| true`)", exits=1)
def stdout_closed(scene: Scene) -> Iterator[None]:
    scene.closed = ("stdout",)
    yield


@case(OTHERS, "nobody reads stdout and stderr any more (`2>&1 | head -1`)", exits=1)
def stderr_closed(scene: Scene) -> Iterator[None]:
    scene.closed = ("stdout", "stderr")
    yield


def _held(scene: Scene) -> Callable[[], None]:
    """Hold shard 3 back; return what lets it go on."""
    scene.environment["DSOLLAMA_READ_TIMEOUT"] = "200"
    gate = scene.tmp / "gate"

    def wait(handler: object) -> None:
        scene.await_file(lambda: gate)
        wire.partial()(handler)  # type: ignore[arg-type]

    scene.on(download_3, wait)
    return gate.touch


def _signalled(scene: Scene, number: signal.Signals) -> None:
    released = _held(scene)

    def send(process: subprocess.Popen[bytes]) -> None:
        scene.await_journal()
        process.send_signal(number)
        process.wait(RUN_SECONDS / 2)
        released()

    scene.during = send


def _signalled_and_ignored(scene: Scene, number: signal.Signals, prefix: list[str]) -> None:
    """Send a signal that whoever started the program had ignored: it goes on."""
    scene.prefix = prefix
    released = _held(scene)

    def send(process: subprocess.Popen[bytes]) -> None:
        scene.await_journal()
        process.send_signal(number)
        time.sleep(0.3)  # were it not ignored, it would stop here and not end right
        released()

    scene.during = send


def meanwhile(scene: Scene, act: Callable[[], None]) -> None:
    """Act while two of three shards have come and the third is held back."""
    released = _held(scene)

    def run(_process: subprocess.Popen[bytes]) -> None:
        scene.await_journal()
        try:
            act()
        finally:
            released()

    scene.during = run


def ollama(scene: Scene) -> AbstractContextManager[str]:
    home = scene.tmp / "ollama-home"
    home.mkdir(exist_ok=True)
    environment = private_environment(home, scene.store, free_port(), os.environ)
    environment.pop("OLLAMA_NOPRUNE")  # pruning is what is to be survived
    return private_ollama(scene.ollama(), environment, scene.tmp / "ollama.log")


def ollama_says(scene: Scene, address: str, *arguments: str) -> str:
    environment = {"HOME": str(scene.tmp), "OLLAMA_HOST": address.removeprefix("http://")}
    program = Path(scene.ollama())
    done = subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
