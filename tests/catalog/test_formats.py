"""Prompt formats and variants: one table, files by name, and nothing unknown in the catalog."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import reference
from dsollama.catalog.formats import FORMATS, VARIANTS, PromptFormat
from dsollama.catalog.models import load_catalog, read_catalog
from dsollama.errors import MalformedCatalogError
from dsollama.prompts.verify import load_cases
from dsollama.resources import read_data, read_template

from conftest import ROOT

ENTRY = read_data("catalog", "models.toml").split("\n\n")[1]
"""The entry of the first model."""


@pytest.mark.parametrize("each", FORMATS.values(), ids=FORMATS)
def test_every_format_has_its_files_and_its_reference(each: PromptFormat) -> None:
    assert read_template(each.body)
    assert read_template(each.jinja)
    assert each.reference in reference.RENDERERS
    assert {each.reference} <= load_cases()[0]["prompts"].keys()


@pytest.mark.parametrize("each", FORMATS.values(), ids=FORMATS)
def test_a_format_takes_its_files_from_one_that_has_some(each: PromptFormat) -> None:
    assert not FORMATS[each.reference].same_as


def test_every_case_has_the_prompts_of_every_model_and_variant() -> None:
    for model in load_catalog().values():
        for case in load_cases():
            prompts = case["prompts"][FORMATS[model.format].reference]
            assert {"plain", *model.variants} <= prompts.keys()


def test_every_variant_has_its_head() -> None:
    assert all(read_template(each.head) for each in VARIANTS.values())


@pytest.mark.parametrize(
    ("old", "new", "sentence", "hint"),
    [
        ('format = "v3.1"', 'format = "v9"', "prompt format 'v9'", "v3.1, v3-0324, r1-0528"),
        ('"thinking"]', '"dreaming"]', "template variant 'dreaming'", "always-thinking"),
        ('["plain", "thinking"]', "[]", "no template variant", "always-thinking"),
        ("max_context", "max_text", "no 'max_context'", "models.toml"),
        ("title = ", "title ", "is not TOML", "models.toml"),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused_in_a_sentence(
    old: str, new: str, sentence: str, hint: str
) -> None:
    assert list(read_catalog(ENTRY)) == ["v3.1-terminus"]
    assert old in ENTRY
    with pytest.raises(MalformedCatalogError, match=sentence) as caught:
        read_catalog(ENTRY.replace(old, new))
    assert hint in caught.value.hint


def test_a_new_format_is_one_entry_in_the_catalog_one_in_the_table_and_its_files(
    tmp_path: Path,
) -> None:
    """In a copy: nothing else below src/ is touched, and every command knows the model."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    catalog = tmp_path / "src" / "dsollama" / "catalog"
    entry = ENTRY.replace("v3.1-terminus", "v9").replace('format = "v3.1"', 'format = "v9"')
    with (catalog / "models.toml").open("a") as file:
        file.write("\n" + entry.replace("DeepSeek-V3.1-Terminus", "DeepSeek-V9") + "\n")
    table = (catalog / "formats.py").read_text()
    last = 'PromptFormat("v3.1"),'
    (catalog / "formats.py").write_text(table.replace(last, f'{last}\n        PromptFormat("v9"),'))
    for kind in ("body.gotmpl", "jinja"):
        old = (tmp_path / "templates" / f"v3.1.{kind}").read_text()
        (tmp_path / "templates" / f"v9.{kind}").write_text(old.replace("User", "Person"))

    def run(*arguments: str, stdin: str = "") -> str:
        return subprocess.run(
            [sys.executable, "-P", "-m", "dsollama", *arguments],
            env=dict(os.environ) | {"PYTHONPATH": str(tmp_path / "src")},
            input=stdin, capture_output=True, text=True, timeout=300, check=True,
        ).stdout  # fmt: skip

    said = json.dumps([{"role": "user", "content": "Hello!"}])
    rendered = run("template", "render", "--model", "v9", stdin=said)
    assert rendered == "<｜Person｜>Hello!<｜Assistant｜></think>"
    assert "<｜Person｜>" in run("template", "show", "--model", "v9", "--variant", "thinking")
    assert "<｜Person｜>" in run("modelfile", "deepseek-v9")
    for command in (["install"], ["verify"], ["modelfile"], ["template", "render"]):
        assert "v9" in run(*command, "--help")
