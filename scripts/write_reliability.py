"""`make reliability`: run every fault of tests/faults, write the table of docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
sys.path.insert(0, str(ROOT / "tests"))

from faults import test_faults  # noqa: E402
from faults.table import BEGIN, Row, tables  # noqa: E402


def main() -> int:
    """Write the tables below the mark; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/faults"],
            cwd=ROOT,
            env=os.environ | {"DSOLLAMA_FAULT_ROWS": folder},
            check=False,
        )
        if done.returncode:
            return done.returncode
        write(Path(folder))
    return 0


def write(folder: Path) -> None:
    """Write the tables from the rows that a run left in `folder`."""
    paths = [folder / f"{case.name}.json" for case in test_faults.CASES]
    rows = [Row(**json.loads(path.read_text("utf-8"))) for path in paths]
    words = DOCUMENT.read_text("utf-8").partition(BEGIN)[0]
    run = [row for row in rows if row.moved is not None]
    counted = (
        f"\n{len(rows)} faults, {len(run)} of them run on the machine that wrote this; the model "
        f"has {run[0].size / 1e6:.1f} MB.\n"
    )
    DOCUMENT.write_text(words + BEGIN + counted + tables(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
