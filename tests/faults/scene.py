"""A stage for one fault: a Hub, a store that has something to lose, and the real program."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import BinaryIO

from dsollama.testing.loopback_hub import Fault, Request

from conftest import STEM, Bench

SHARDS = 3
TOKEN = "hf_secret"
RUN_SECONDS = 300.0
"""A guard against a program that hangs; no case waits for it."""

SILENCE = {"DSOLLAMA_READ_TIMEOUT": "1"}
"""For a case whose server falls silent; all others wait for longer than a busy machine takes."""

FILLER = "filler"
"""A file that takes the room of a store's disk; not counted as a part of the store."""

SHARD_2, SHARD_3 = (f"{STEM}-0000{number}-of-0000{SHARDS}.gguf" for number in (2, 3))

Where = Callable[[Request], bool]
Action = Fault | Callable[[BaseHTTPRequestHandler], None]
Arrange = Callable[["Scene"], Iterator[None]]


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        name: of the function that arranges it; the test's id.
        kind: heading in the table.
        fault: in plain words, for the table.
        exits: exit code of the run that meets it.
        says: what the user is told, a pattern.
        arrange: makes the fault; from its yield on the program runs, behind it the fault is
            healed, or what an interrupted run left is damaged.
        killed: the program had no chance to tidy up.
    """

    name: str
    kind: str
    fault: str
    exits: int
    says: str
    arrange: Arrange
    killed: bool = False


CASES: list[Case] = []


def case(
    kind: str, fault: str, *, exits: int = 0, says: str = "", killed: bool = False
) -> Callable[[Arrange], Arrange]:
    """Add a case to the list."""

    def add(arrange: Arrange) -> Arrange:
        CASES.append(Case(arrange.__name__, kind, fault, exits, says, arrange, killed))
        return arrange

    return add


@dataclass
class Done:
    """A run of the program that ended."""

    exit: int
    out: str
    err: str

    def errors(self) -> list[str]:
        """Return the sentences after `Error:`."""
        return [line[7:] for line in self.err.splitlines() if line.startswith("Error: ")]


@dataclass
class Scene:
    """What a case changes before, during and after the run.

    Attributes:
        bench: Hub and store.
        tmp: a folder of the case's own.
        earlier: digests by name of the store's files, which the rerun has to leave alone.
        before: the same when the fault begins, which must not change meanwhile.
        ollama: gives the real Ollama, or skips.
        environment: of the run that meets the fault; the rerun has `bench.environment()`.
        arguments: of both runs.
        prefix: a program that starts the run that meets the fault.
        closed: which of its outputs nobody reads.
        before_own: names of dsollama's own files that may be there afterwards.
        during: is called while it runs.
        stack: ends after the rerun: file systems, servers.
    """

    bench: Bench
    tmp: Path
    stack: ExitStack
    ollama: Callable[[], Path]
    earlier: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ("install", "UD-Q2_K_XL", "--yes")
    prefix: Sequence[str] = ()
    closed: tuple[str, ...] = ()
    before_own: set[str] = field(default_factory=set)
    during: Callable[[subprocess.Popen[bytes]], None] = lambda _process: None

    @property
    def store(self) -> Path:
        """OLLAMA_MODELS."""
        return self.bench.store

    @property
    def own(self) -> Path:
        """dsollama's folder in the store."""
        return self.store / ".dsollama"

    @property
    def staging(self) -> Path:
        """The folder of the only install under way."""
        (folder,) = self.bench.staged()
        return folder

    def files(self) -> dict[str, str]:
        """Digests by name of every file of the store that is not dsollama's own."""
        return digests(self.store)

    def own_files(self) -> set[str]:
        """Names of dsollama's own files, but for the store's lock."""
        found = {str(path.relative_to(self.own)) for path in self.own.rglob("*")}
        return {name for name in found if (self.own / name).is_file()} - {"lock"}

    def key(self) -> str:
        """Name of the staging folder of this install."""
        return self.bench.plan().key

    def on(self, where: Where, action: Action, times: int | None = None) -> None:
        """Let requests `where` meet `action`, the first `times` of them or all."""
        fault = action if isinstance(action, Fault) else Fault(answer=action)
        left = [times]
        earlier = self.bench.hub.fault

        def meet(request: Request) -> Fault | None:
            if not where(request):
                return earlier(request)
            if left[0] is not None:
                if left[0] == 0:
                    return earlier(request)
                left[0] -= 1
            return fault

        self.bench.hub.fault = meet

    def heal(self) -> None:
        """Let the Hub answer rightly."""
        self.bench.hub.fault = lambda _request: None

    def await_file(self, path: Callable[[], Path | None], seconds: float = RUN_SECONDS / 2) -> None:
        """Wait until a file is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = path()
            if found is not None and found.exists():
                return
            time.sleep(0.01)
        raise AssertionError("what was waited for did not come")

    def await_journal(self) -> None:
        """Wait until something is claimed for good: a journal may be seen before it is durable.

        The next one is begun only after that.
        """
        seen: set[int] = set()

        def second() -> Path | None:
            for path in (self.own / "staging").glob("*/journal.json"):
                seen.add(path.stat().st_ino)
                return path if len(seen) > 1 else None
            return None

        self.await_file(second)

    def play(self) -> Done:
        """Run the program into the fault."""
        return self._run({**self.bench.environment(), **self.environment}, self.prefix, self.during)

    def replay(self) -> Done:
        """Run the same command again, now that nothing is wrong."""
        return self._run(self.bench.environment(), (), lambda _process: None)

    def _run(
        self,
        environment: Mapping[str, str],
        prefix: Sequence[str],
        during: Callable[[subprocess.Popen[bytes]], None],
    ) -> Done:
        command = [*prefix, sys.executable, "-m", "dsollama", *self.arguments]
        quick = {"DSOLLAMA_CONNECTIONS": "1", "DSOLLAMA_READ_TIMEOUT": "60"}
        quick |= {"DSOLLAMA_MAX_WAIT": "0.1", "HF_TOKEN": TOKEN}
        outputs = {name: self.tmp / name for name in ("stdout", "stderr")}
        with ExitStack() as files:
            where = {name: files.enter_context(path.open("wb")) for name, path in outputs.items()}
            for name in self.closed if during is self.during else ():
                where[name] = files.enter_context(_unread_pipe())
            process = subprocess.Popen(
                command, env=quick | dict(environment), stdin=subprocess.DEVNULL, **where
            )
            try:
                during(process)
                status = process.wait(RUN_SECONDS)
            finally:
                process.kill()
                process.wait()
        return Done(status, outputs["stdout"].read_text(), outputs["stderr"].read_text())

    def dsollama(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another dsollama on the same store."""
        return subprocess.run(
            [sys.executable, "-m", "dsollama", *arguments],
            env=self.bench.environment(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )


def digests(store: Path) -> dict[str, str]:
    """SHA-256 by name of every file of a store that is not dsollama's own."""
    found = {}
    for path in sorted(store.rglob("*")):
        if path.is_file() and ".dsollama" not in path.parts and path.name != FILLER:
            with path.open("rb") as file:
                found[str(path.relative_to(store))] = hashlib.file_digest(
                    file, "sha256"
                ).hexdigest()
    return found


def _unread_pipe() -> BinaryIO:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "wb")


@contextmanager
def arranged(case: Case, scene: Scene) -> Iterator[None]:
    """Have the fault arranged inside the block, and healed behind it."""
    arrange: Callable[[Scene], AbstractContextManager[None]] = contextmanager(case.arrange)
    with arrange(scene):
        yield
    scene.heal()


def listing(request: Request) -> bool:
    """The Hub's list of files."""
    return request.server == "hub" and request.path.startswith("/api/models/")


def resolve(request: Request) -> bool:
    """The question where a file's bytes are."""
    return request.server == "hub" and "/resolve/" in request.path


def resolve_2(request: Request) -> bool:
    """The same, of shard 2."""
    return resolve(request) and SHARD_2 in request.path


def resolve_2_again() -> Where:
    """The same in mid-download, behind the first time, which is for the header."""
    asked: list[Request] = []

    def where(request: Request) -> bool:
        if resolve_2(request):
            asked.append(request)
        return resolve_2(request) and len(asked) > 1

    return where


def cdn(request: Request) -> bool:
    """Any request for bytes."""
    return request.server == "cdn"


def download(request: Request) -> bool:
    """A request for bytes of a shard behind its header."""
    return cdn(request) and _start(request) > 0


def download_2(request: Request) -> bool:
    """A request for bytes of shard 2 behind its header; shard 1 has come by then."""
    return cdn(request) and SHARD_2 in request.path and _start(request) > 0


def download_3(request: Request) -> bool:
    """The same of shard 3."""
    return cdn(request) and SHARD_3 in request.path and _start(request) > 0


def _start(request: Request) -> int:
    match = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
    return int(match[1]) if match else 0


def as_user(user: int) -> list[str]:
    """Prefix of a command that is run by a user who is not root."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]


def is_root() -> bool:
    return os.geteuid() == 0
