"""What docs/ says of the code: names of modules, rooms, layers, limits and links."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import dsollama

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
DESIGN = (ROOT / "docs" / "design.md").read_text()
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
ROOMS = {each.name for each in pkgutil.iter_modules(dsollama.__path__)} - {"__main__"}
UNITS = {"": 1, "characters": 1, "MiB": 2**20, "GiB": 2**30}

NAME = re.compile(rf"`((?:{'|'.join(sorted(ROOMS))})(?:\.(?!json\b)\w+)+)`")
LIMIT = re.compile(r"^\| .+ \| ([\d,]+) ?(\w*) \| `([\w.]+)` \|$", re.MULTILINE)
ROW = re.compile(r"^\| ([^|]+) \| .+ \| `([\w.]+)` \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+\.md)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("name", sorted({*NAME.findall(DESIGN), *NAME.findall(GLOSSARY)}))
def test_a_name_of_the_code_is_there(name: str) -> None:
    assert pkgutil.resolve_name(f"dsollama.{name}") is not None


def test_the_design_lists_every_room_once() -> None:
    table = DESIGN.partition("## Rooms")[2].partition("```")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(ROOMS)


def test_only_the_command_line_knows_a_terminal() -> None:
    package = ROOT / "src" / "dsollama"
    prints = re.compile(r"^\s*(?:import|from) (?:typer|rich)\b|^\s*print\(", re.MULTILINE)
    printing = {each for each in package.rglob("*.py") if prints.search(each.read_text())}
    assert printing
    assert {each.parent for each in printing} == {package / "cli"}


def test_the_design_draws_the_layers_that_lint_checks() -> None:
    drawn = DESIGN.partition("`pyproject.toml`:\n\n```\n")[2].partition("\n```")[0]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each for each in contracts["contracts"] if each["type"] == "layers")["layers"]
    assert drawn.splitlines() == [line.replace("dsollama.", "") for line in layers]


def test_the_design_states_the_limits_of_the_code() -> None:
    limits = LIMIT.findall(DESIGN)
    stated = {name: int(count.replace(",", "")) * UNITS[unit] for count, unit, name in limits}
    assert stated == {name: pkgutil.resolve_name(f"dsollama.{name}") for name in stated}
    assert len(stated) == DESIGN.count("MAX_")


def test_the_tests_that_the_design_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", DESIGN)
    assert named
    assert [each for each in named if not (ROOT / each).is_file()] == []


def test_the_glossary_has_each_word_once_and_its_owner() -> None:
    words = Counter(word for word, _ in ROW.findall(GLOSSARY))
    assert words
    assert [word for word, count in words.items() if count > 1] == []
    for _, owner in ROW.findall(GLOSSARY):
        pkgutil.resolve_name(f"dsollama.{owner}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, heading in LINK.findall(page.read_text()):
        there = page.parent / target
        assert there.is_file(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
        marks = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not heading or heading in marks, f"{target}#{heading}"
