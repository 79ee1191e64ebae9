"""`make bench`: an install against curl, and against the documents' pipeline, in one run.

Everything is on loopback and on one filesystem. A Hub in a process of its own serves a tiny model
whose experts are padded to the wanted size in 9 shards. In each round, one after the other:

  dsollama   dsollama install UD-Q2_K_XL  (shard and blob digests, fsync, registered)
  curl       curl of the same shards, one after another (no digest, no merge), and then `sync`:
             dsollama's bytes are on the disk when it ends, curl's are partly in memory still
  documents  hf download; llama-gguf-split --merge; ollama create  (with Ollama 0.33.0)

5.3 GB is more than Linux lets wait in memory to be written (dirty_ratio: a fifth of 24 GiB), so
curl, too, has to write, as with any real model. With `--gb 2.6` its bytes all stay in memory.

Measured from outside: wall seconds, CPU seconds of the commands (and of `ollama serve` where it
works for them), peak disk below the round's folder against the model's size, and the largest
resident set of a command's process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from dsollama.catalog.models import DEFAULT_MODEL, find_model
from dsollama.ollama.private import find_ollama, free_port, private_environment, private_ollama
from dsollama.resources import read_template
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub
from dsollama.testing.tiny_model import WIDTH, tiny_model, write_shards

SHARDS = 9
LAYERS = 28
SAMPLE_SECONDS = 0.05
SETTLE_SECONDS = 3.0
BYTES_PER_UNIT = (LAYERS - 1) * 3 * WIDTH * (8 + 1) * 2  # eight experts and the shared one
MODEL = find_model(DEFAULT_MODEL)
QUANT = "UD-Q2_K_XL"


@dataclass
class Figures:
    """What one way cost: wall and CPU seconds, peak disk and RSS in bytes.

    `durable` is the wall time until the bytes are on the disk, where that is measured apart.
    """

    wall: float = 0.0
    durable: float = 0.0
    cpu: float = 0.0
    disk: int = 0
    rss: int = 0
    steps: dict[str, float] = field(default_factory=dict)


class Watch:
    """Samples the disk below a folder and the memory of a process while a block runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = used(folder)
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, used(self.folder) - self.start)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, used(self.folder) - self.start)


def used(folder: Path) -> int:
    """Return the bytes that the files below `folder` occupy."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total


def run(figures: Figures, step: str, command: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a command and add its figures."""
    began = time.monotonic()
    process = subprocess.Popen(
        list(command), env=dict(env), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode(errors='replace')}")
    figures.steps[step] = time.monotonic() - began
    figures.wall += figures.steps[step]
    figures.cpu += usage.ru_utime + usage.ru_stime
    figures.rss = max(figures.rss, usage.ru_maxrss * 1024)


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds of a process and its children, ended ones included."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def with_dsollama(folder: Path, env: dict[str, str]) -> Figures:
    """Install as a user does."""
    figures = Figures()
    command = [sys.executable, "-m", "dsollama", "install", QUANT, "--yes"]
    with Watch(folder) as watch:
        run(figures, "install", command, env | {"OLLAMA_MODELS": str(folder / "models")})
    figures.disk = watch.peak
    return figures


def with_curl(folder: Path, env: dict[str, str], paths: Sequence[str]) -> Figures:
    """Fetch the shards to disk and do nothing else."""
    figures = Figures()
    synced = Figures()
    with Watch(folder) as watch:
        for number, path in enumerate(paths):
            url = f"{env['HF_ENDPOINT']}/{MODEL.repositories[0]}/resolve/main/{path}"
            command = ["curl", "-sSfL", "-o", str(folder / Path(path).name), url]
            run(figures, f"curl {number + 1}", command, env)
        files = [str(folder / Path(path).name) for path in paths]
        run(synced, "sync", ["sync", "-d", *files], env)
    figures.steps |= synced.steps
    figures.durable = figures.wall + synced.wall
    figures.disk = watch.peak
    return figures


def with_documents(
    folder: Path, env: dict[str, str], paths: Sequence[str], ollama: Path, split: Path
) -> Figures:
    """Do what the documents say, by hand."""
    figures = Figures()
    env = env | {
        "OLLAMA_MODELS": str(folder / "models"), "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
        "HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    (folder / "home").mkdir()
    modelfile = folder / "Modelfile"
    modelfile.write_text("FROM ./merged_file.gguf\n")
    hf = str(Path(sys.executable).with_name("hf"))
    with Watch(folder) as watch, private_ollama(ollama, env, folder / "ollama.log"):
        server = next(
            each.pid
            for each in psutil.process_iter(["cmdline", "environ"])
            if each.info["cmdline"] == [str(ollama), "serve"]
            and (each.info["environ"] or {}).get("OLLAMA_HOST") == env["OLLAMA_HOST"]
        )
        download = ["download", MODEL.repositories[0], "--include", f"*{QUANT}*"]
        run(figures, "hf download", [hf, *download, "--local-dir", str(folder / "shards")], env)
        merged = str(folder / "merged_file.gguf")
        run(
            figures, "llama-gguf-split",
            [str(split), "--merge", str(folder / "shards" / paths[0]), merged], env,
        )  # fmt: skip
        run(figures, "ollama create", [str(ollama), "create", "ds", "-f", str(modelfile)], env)
        figures.cpu += tree_cpu(server)
    figures.disk = watch.peak
    return figures


def serve(folder: Path, size: int) -> None:
    """Run as the Hub's process: make the shards, print endpoint and paths, wait for stdin."""
    model = tiny_model(
        read_template("v3.1.jinja"), layers=LAYERS, expert_width=-(-size // BYTES_PER_UNIT)
    )
    repository = HubRepository()
    for path in write_shards(folder, f"{MODEL.title}-{QUANT}", model, SHARDS):
        repository.add(f"{QUANT}/{path.name}", path)
    with LoopbackHub({MODEL.repositories[0]: repository}) as hub:
        total = sum(file.size for file in repository.files.values())
        print(json.dumps([hub.endpoint, list(repository.files), total]), flush=True)
        sys.stdin.read()


def report(results: Mapping[str, Sequence[Figures]], model: int) -> None:
    """Print medians and the ratios that the project promises."""

    def median(way: str, value: Callable[[Figures], float]) -> float:
        return statistics.median(value(each) for each in results[way])

    print(f"\n{'':<10} {'wall s':>8} {'CPU s':>8} {'peak disk':>10} {'peak RSS':>10}   (medians)")
    for way in results:
        disk = median(way, lambda f: f.disk) / model
        rss = median(way, lambda f: f.rss) / 2**20
        print(
            f"{way:<10} {median(way, lambda f: f.wall):8.2f} {median(way, lambda f: f.cpu):8.2f} "
            f"{disk:8.3f} x {rss:6.0f} MiB"
        )
    for way in results:
        walls = " ".join(f"{each.wall:.2f}" for each in results[way])
        print(f"{way:<10} walls: {walls}")
    wall = {way: median(way, lambda f: f.wall) for way in results}
    durable = median("curl", lambda f: f.durable)
    print(
        f"\nwall dsollama / curl         {wall['dsollama'] / wall['curl']:.2f}   (promised <= 1.2)"
    )
    print(f"wall dsollama / curl + sync  {wall['dsollama'] / durable:.2f}   ({durable:.2f} s)")
    if "documents" in wall:
        ratio = wall["documents"] / wall["dsollama"]
        print(f"wall documents / dsollama    {ratio:.2f}   (promised >= 5)")


def main() -> None:
    """Run the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=5.3, help="size of the model, in GB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--no-documents", action="store_true", help="leave out the slow way")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, int(arguments.gb * 10**9))
        return
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-"))
        )
        size_option = ["--gb", str(arguments.gb)]
        hub = stack.enter_context(
            subprocess.Popen(
                [sys.executable, __file__, "--serve", str(folder / "hub"), *size_option],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        assert hub.stdout is not None
        endpoint, paths, size = json.loads(hub.stdout.readline())
        print(f"{size / 10**9:.2f} GB in {len(paths)} shards, {arguments.rounds} rounds")
        os.sync()
        ollama = find_ollama()
        split = Path("llama.cpp/llama-gguf-split").absolute()
        base = private_environment(folder, folder / "models", free_port(), os.environ)
        env = base | {"HF_ENDPOINT": endpoint}
        ways: dict[str, Callable[[Path], Figures]] = {
            "dsollama": lambda where: with_dsollama(where, env),
            "curl": lambda where: with_curl(where, env, paths),
        }
        if not arguments.no_documents:
            ways["documents"] = lambda where: with_documents(where, env, paths, ollama, split)
        results: dict[str, list[Figures]] = {way: [] for way in ways}
        for number in range(-1, arguments.rounds):
            # The quick ways take turns at being first, the slow one is last: who comes after it
            # would pay for what its removal leaves the disk to do. Round 0 only warms up.
            order = ["dsollama", "curl"] if number % 2 else ["curl", "dsollama"]
            if number >= 0:
                order += [way for way in ways if way not in order]
            for way in order:
                where = folder / way
                where.mkdir()
                figures = ways[way](where)
                if number >= 0:
                    results[way].append(figures)
                steps = ", ".join(
                    f"{name} {seconds:.1f}" for name, seconds in figures.steps.items()
                )
                print(f"round {number + 1} {way}: {figures.wall:.2f} s ({steps})", flush=True)
                shutil.rmtree(where)
                os.sync()  # what one way left to be written must not slow down the next
                time.sleep(SETTLE_SECONDS)
        report(results, size)
        hub.communicate("")


if __name__ == "__main__":
    main()
