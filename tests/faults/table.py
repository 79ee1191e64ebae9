"""The fault table of docs/reliability.md: its rows, written and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEGIN = "<!-- make reliability writes everything below -->\n"
HEADING = "| fault | what the user sees | exit | the store then | the same command again moves |\n"
LINE = "|---|---|---|---|---|\n"
SAME_SHARE = 0.1
"""How far two runs may differ in the bytes that the second one moves, as a share of the model."""


@dataclass(frozen=True)
class Row:
    """What one fault did.

    Attributes:
        kind: heading.
        fault: in plain words.
        sees: what the user is told, with numbers and paths that change masked.
        exits: exit code.
        store: how it was afterwards.
        moved: bytes that the Hub sent in the rerun; None where the case was not run.
        size: bytes of the model.
    """

    kind: str
    fault: str
    sees: str
    exits: str
    store: str
    moved: int | None
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def text(self) -> str:
        """Return its line of the table."""
        moved = "" if self.moved is None else f"{self.moved / 1e6:.1f} MB"
        cells = (self.fault, self.sees, self.exits, self.store, moved)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def agrees(self, line: str) -> bool:
        """Whether a line of the document says the same; the bytes may differ a little."""
        number = re.compile(r"([\d.]+) MB \|$")
        mine, theirs = number.search(self.text()), number.search(line)
        if number.sub("", self.text()) != number.sub("", line) or not mine or not theirs:
            return False
        return abs(float(mine[1]) - float(theirs[1])) * 1e6 <= SAME_SHARE * self.size


def masked(text: str, replaced: dict[str, str]) -> str:
    """Mask what differs from run to run: paths, ports, digests and counts of bytes."""
    for old, new in replaced.items():
        text = text.replace(old, new)
    text = re.sub(r"\b[0-9a-f]{12}\.\.\.", "HEX...", text)
    text = re.sub(r"sha256-[0-9a-f]{64}", "sha256-HEX", text)
    text = re.sub(r"\([0-9a-f]{12}\)", "(HEX)", text)
    text = re.sub(r"UD-Q2_K_XL/\S+-0000(\d)-of-00003\.gguf", r"SHARD-\1", text)
    text = re.sub(r"at byte \d+", "at byte N", text)
    text = re.sub(r"in \d+\.\d s", "in N s", text)
    text = re.sub(r"\d+(\.\d+)? [kMG]B", "N MB", text)
    text = re.sub(r" \(_ssl\.c:\d+\)", "", text)
    return re.sub(r"\b\d{5,}\b", "N", text)


def tables(rows: Iterable[Row]) -> str:
    """Return the tables, one a kind, in the order of the rows."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    return "".join(
        f"\n### {kind}\n\n{HEADING}{LINE}" + "".join(f"{row.text()}\n" for row in found)
        for kind, found in kinds.items()
    )


def find_line(document: Path, kind: str, fault: str) -> str | None:
    """Return the line of a fault in the document."""
    section = document.read_text("utf-8").partition(f"\n### {kind}\n")[2].partition("\n### ")[0]
    start = f"| {fault} |".replace("`2>&1 | ", "`2>&1 \\| ").replace("`| ", "`\\| ")
    return next((line for line in section.splitlines() if line.startswith(start)), None)
