"""No value adds an instruction to a written Modelfile, and no name leaves its folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsollama.catalog.models import find_model
from dsollama.catalog.quants import quant_label
from dsollama.errors import InvalidNameError
from dsollama.gguf.shards import find_shard_sets
from dsollama.install.differences import compare_params
from dsollama.manifest.modelfile import Modelfile, Parameter, format_scalar
from dsollama.manifest.modelfile_text import (
    Comment,
    Entry,
    Instruction,
    parse_modelfile,
    write_modelfile,
)
from dsollama.manifest.names import ModelName, parse_name

pieces = st.sampled_from(
    ['"', '""', '"""', "\n", "\r", "\r\n", " ", "\t", "#", "FROM evil", "\nSYSTEM x\n", "\0",
     "\x1b[", "\x85", "\u2028", "\u3000", "\ufeff", "{{ .Prompt }}", "a", "é"]
)  # fmt: skip
hostile = st.lists(pieces | st.text(max_size=4), max_size=8).map("".join)
scalars = hostile | st.integers() | st.floats() | st.booleans()
params = st.dictionaries(
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True) | hostile,
    scalars | st.lists(scalars, max_size=3),
    max_size=3,
)


def expected(document: Modelfile) -> list[Entry]:
    """What the document means, without a look at its text."""
    entries: list[Entry] = [Instruction("FROM", document.base)]
    if document.template is not None:
        entries.append(Instruction("TEMPLATE", document.template))
    if document.system:
        entries.append(Instruction("SYSTEM", document.system))
    for name, value in sorted(document.params.items()):
        values = value if isinstance(value, list | tuple) else [value]
        entries += [Instruction("PARAMETER", format_scalar(each), name) for each in values]
    return entries


def said(document: Modelfile) -> list[Entry] | None:
    """What the document's text says; None where there is no such text."""
    try:
        text = document.render()
    except ValueError:
        return None
    return [each for each in parse_modelfile(text) if not isinstance(each, Comment)]


@given(hostile, st.none() | hostile, hostile, params, hostile)
@example("m", 'a"""b', "x\n", {}, "")
@example("m\nSYSTEM evil", None, "", {}, "")
@example("m", None, "a\rSYSTEM evil", {}, "")
@example("m", None, "", {"x\nFROM evil": 1}, "")
@example("m", None, "", {"stop": ["a\nb", '"']}, "")
@example("m", None, "", {}, "a\rFROM evil\x85\nFROM worse")
def test_a_document_says_what_it_means_or_is_refused(
    base: str, template: str | None, system: str, values: dict[str, Parameter], comment: str
) -> None:
    document = Modelfile(base, template, values, system, comment)
    found = said(document)
    assert found is None or found == expected(document)


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(words, words)
def test_plain_words_are_never_refused(template: str, system: str) -> None:
    document = Modelfile("m", template.replace('"', "'"), {"temperature": 0.5}, system + "\n.")
    assert said(document) == expected(document)


@given(st.lists(st.builds(Comment, hostile) | st.builds(Instruction, hostile, hostile, hostile)))
def test_what_is_written_is_read_back_or_refused(entries: list[Entry]) -> None:
    whole = [Instruction("FROM", "m"), *entries]
    with contextlib.suppress(ValueError):
        assert list(parse_modelfile(write_modelfile(whole))) == whole


@pytest.mark.parametrize("value", ["a\rb", "a\r\nb", "\r", "a\n\rb"])
def test_a_carriage_return_inside_a_value_stays(value: str) -> None:
    """Ollama 0.33.0's parser keeps it as well: only outside of quotation marks it ends a line."""
    document = Modelfile("m", system=value)
    assert said(document) == expected(document)


names = st.lists(
    st.sampled_from(["..", ".", "/", ":", "\\", "a", "-", "\0", "\n", "~", "%2e", "é", "hf.co"])
    | st.text(max_size=3),
    max_size=10,
).map("".join)


@given(names)
@example("../../x:y")
@example("a:..")
@example("a/b/c:d\n")
def test_no_name_leaves_its_folder(text: str) -> None:
    with contextlib.suppress(InvalidNameError):
        assert_inside(parse_name(text))


@given(names)
def test_no_file_of_a_repository_makes_a_name_that_leaves_its_folder(path: str) -> None:
    for found in find_shard_sets([f"{path}.gguf", f"{path}-00001-of-00001.gguf"]):
        with contextlib.suppress(InvalidNameError):
            assert_inside(parse_name("hf.co/owner/repo").with_tag(quant_label(found.stem)))


def assert_inside(name: ModelName) -> None:
    place = PurePosixPath("manifests") / name.path
    assert len(place.parts) == 5
    assert not {"..", ".", "", "/"} & set(place.parts)
    assert not {"\0", "\n", "\\", "\x1b"} & set(str(place))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(hostile, inner, max_size=2),
    max_leaves=4,
)


@given(st.binary(max_size=40) | st.dictionaries(hostile, json_values, max_size=3))
def test_a_repositorys_params_become_sentences_of_one_line(
    theirs: bytes | dict[str, object],
) -> None:
    data = theirs if isinstance(theirs, bytes) else json.dumps(theirs).encode()
    ours = find_model("v3.1-terminus").params
    for note in compare_params(data, ours):
        assert "\n" not in note
        assert "\x1b" not in note
        assert len(note) < 200
