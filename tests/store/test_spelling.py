"""Which spelling a name gets, and which names are one to Ollama."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.manifest.names import ModelName, parse_name
from dsollama.store.spelling import clashes, same_name, spelled


def names(*texts: str) -> list[ModelName]:
    return [parse_name(text) for text in texts]


@pytest.mark.parametrize(
    ("typed", "existing", "written"),
    [
        ("foo:q2", [], "foo:q2"),
        ("Foo:Q2", ["foo:q2"], "foo:q2"),
        ("foo:q2", ["Other/Foo:x"], "Foo:q2"),
        ("foo:Q2", ["bar:q2"], "foo:q2"),
        ("team/foo:q2", ["Team/bar:x"], "Team/foo:q2"),
        ("HF.co/o/foo:q2", ["hf.co/O/bar:x"], "hf.co/O/foo:q2"),
        ("foo:q2", ["Registry.Ollama.AI/Library/bar:x"], "Registry.Ollama.AI/Library/foo:q2"),
        ("REGISTRY.ollama.ai/Library/foo:Latest", [], "foo:latest"),
        # Two spellings are there already: the given one, and the whole name before its parts.
        ("foo:Q2", ["bar:q2", "baz:Q2"], "foo:Q2"),
        ("foo:Q2", ["foo:q2", "baz:Q2"], "foo:q2"),
        ("foo:q2", ["Foo:q2", "foo:q2"], "foo:q2"),
        # A namespace is no model, and a model no tag.
        ("foo:bar", ["Foo/x:BAR2", "x/y:FOO"], "foo:bar"),
    ],
)
def test_each_part_is_spelled_as_the_store_spells_it(
    typed: str, existing: Sequence[str], written: str
) -> None:
    assert str(spelled(parse_name(typed), names(*existing))) == written


def test_what_ollama_can_read_counts_before_what_it_cannot() -> None:
    read, unread = names("bar:q2"), names("bar:q2", "broken:Q2")
    assert str(spelled(parse_name("foo:Q2"), read, unread)) == "foo:q2"
    assert str(spelled(parse_name("foo:Q2"), [], names("broken:q2"))) == "foo:q2"


def test_the_very_name_is_meant_where_another_differs_in_case() -> None:
    existing = names("Foo:q2", "foo:q2")
    assert same_name(parse_name("foo:q2"), existing) == names("foo:q2")
    assert same_name(parse_name("FOO:Q2"), existing) == existing
    assert same_name(parse_name("bar:q2"), existing) == []


def test_every_part_with_two_spellings_is_told_once_with_all_its_names() -> None:
    found = clashes(names("foo:q2", "bar:Q2", "baz:q2", "Team/a:x", "team/b:y"))
    assert [each.part for each in found] == ["namespace", "tag"]
    assert found[1].names == {
        "Q2": tuple(names("bar:Q2")),
        "q2": tuple(names("baz:q2", "foo:q2")),
    }
    assert found[1].text().startswith("The tag 'Q2' (in bar:Q2) and 'q2' (in baz:q2 and 1 more)")
    assert found[1].others(parse_name("foo:q2")) == tuple(names("bar:Q2"))
    assert found[1].others(parse_name("a:x")) == ()
    assert clashes(names("foo:q2", "foo/q2:x", "q2:Foo")) == ()
    (twice,) = clashes(names("foo:q2", "bar:Q2", "foo:q2"))
    assert twice.names["q2"] == tuple(names("foo:q2"))


PART = st.sampled_from(["a", "A", "ab", "aB", "AB", "latest", "Latest", "library", "LIBRARY"])
NAME = st.builds(ModelName, PART, PART, PART, PART)


@given(st.lists(NAME, max_size=8), NAME)
def test_a_new_name_never_brings_in_a_second_spelling(
    existing: list[ModelName], typed: ModelName
) -> None:
    written = spelled(typed, existing)
    assert written.folded == typed.folded
    assert spelled(written, existing) == written
    before = {(each.part, spelling) for each in clashes(existing) for spelling in each.names}
    after = {
        (each.part, spelling) for each in clashes([*existing, written]) for spelling in each.names
    }
    assert after == before
