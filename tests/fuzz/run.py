"""The coverage-guided fuzzer: `make fuzz`, or one target with libFuzzer's own options.

    python tests/fuzz/run.py                        all targets, as many inputs as RUNS says
    python tests/fuzz/run.py --scale 0.1            a tenth of them
    python tests/fuzz/run.py gguf -runs=100000      one target
    python tests/fuzz/run.py gguf FILE              one input again
    python tests/fuzz/run.py --keep                 take what a run found into tests/fuzz/corpus

What a run found lies in .fuzz/TARGET; an input that fails in .fuzz/TARGET-crash-*, -oom-* or
-timeout-*. Memory is libFuzzer's own bound on the whole process, the interpreter included.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOUND = ROOT / ".fuzz"
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE.parent)]

RUNS = {
    "gguf": 600_000, "journal": 450_000, "ledger": 200_000, "manifest": 100_000,
    "modelfile": 150_000,
}  # fmt: skip
"""Inputs of each target in `make fuzz`."""

MEMORY_MB = 256
SECONDS = 5
"""For one input; ordinary ones take well under a millisecond."""

MAX_BYTES = {"gguf": 16384, "journal": 8192, "ledger": 8192, "manifest": 8192, "modelfile": 4096}
CORES = 2
_INSTRUMENTED = ["dsollama.gguf", "dsollama.manifest", "dsollama.store", "dsollama.transfer"]
_INSTRUMENTED += ["dsollama.cli.models", "json"]


def fuzz_one(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz.targets import TARGETS
    from fuzz.mutators import MUTATORS

    own = MUTATORS.get(name)
    mutator = None
    if own is not None:
        known = own

        def mutator(data: bytes, size: int, seed: int) -> bytes:
            return known(data, size, seed, atheris.Mutate)

    atheris.Setup([sys.argv[0], *options], TARGETS[name], custom_mutator=mutator)
    atheris.Fuzz()


def fuzz_all(scale: float) -> int:
    """Fuzz every target in processes of their own and print a table; return the exit code."""
    began = time.monotonic()
    with ThreadPoolExecutor(CORES) as pool:
        results = list(pool.map(partial(_in_process, scale), RUNS))
    total = 0
    print(
        f"{'target':<10} {'inputs':>9} {'a second':>9} {'coverage':>9} {'MB at most':>11}  result"
    )
    for name, (code, log) in zip(RUNS, results, strict=True):
        done = _number(r"stat::number_of_executed_units: *(\d+)", log)
        rate = _number(r"stat::average_exec_per_sec: *(\d+)", log)
        memory = _number(r"stat::peak_rss_mb: *(\d+)", log)
        total += done
        result = "no find" if code == 0 else f"FOUND, see .fuzz (exit {code})"
        coverage = _number(r"cov: (\d+)", log)
        print(f"{name:<10} {done:>9} {rate:>9} {coverage:>9} {memory:>11}  {result}")
    print(f"{total} inputs in {time.monotonic() - began:.0f} s; no more than {MEMORY_MB} MB each")
    for name, (code, log) in zip(RUNS, results, strict=True):
        if code:
            print(f"--- {name}\n{log[-4000:]}", file=sys.stderr)
    return 1 if any(code for code, _ in results) else 0


def options_of(name: str, runs: int) -> list[str]:
    """Return libFuzzer's options for a target."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    options = [
        f"-runs={runs}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={SECONDS}",
        f"-max_len={MAX_BYTES[name]}", f"-artifact_prefix={FOUND}/{name}-",
        "-print_final_stats=1",
    ]  # fmt: skip
    words = name if name in {"gguf", "modelfile"} else "json"
    options.append(f"-dict={HERE / words}.dict")
    return [*options, str(folder), str(CORPUS / name)]


def _in_process(scale: float, name: str) -> tuple[int, str]:
    runs = int(RUNS[name] * scale)
    done = subprocess.run(
        ["nice", "-n", "19", sys.executable, __file__, name, *options_of(name, runs)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1] == "--scale":
        sys.exit(fuzz_all(float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
    elif sys.argv[1] == "--keep":
        from fuzz.keep import keep

        keep(FOUND, CORPUS)
    else:
        given = sys.argv[2:]
        files = [each for each in given if not each.startswith("-")]
        fuzz_one(sys.argv[1], given if files else [*options_of(sys.argv[1], 0)[1:], *given])
