import re

import pytest

from dsollama.catalog.formats import VARIANTS
from dsollama.catalog.models import CatalogModel, load_catalog
from dsollama.errors import UnknownVariantError
from dsollama.templates.variants import (
    catalog_modelfile,
    choose_variants,
    go_template,
)

FORMATS = {(model.format, name) for model in load_catalog().values() for name in model.variants}
EACH = pytest.mark.parametrize(("prompt_format", "variant"), sorted(FORMATS))
COMMENT = re.compile(r"\{\{-? */\*.*?\*/ *-?\}\}", re.DOTALL)
ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
OPENERS = ("range", "if", "with", "define", "block")


def template(prompt_format: str, variant: str) -> str:
    return go_template(prompt_format, VARIANTS[variant])


def actions(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return each action that is not a comment, with the blocks that it stands in."""
    found, stack = [], []
    for action in ACTION.findall(COMMENT.sub("", text)):
        word = action.split()[0]
        if word == "end":
            stack.pop()
        found.append((action, tuple(stack)))
        if word in OPENERS:
            stack.append(action)
    assert stack == []
    return found


def uses(text: str, field: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(each, stack) for each, stack in actions(text) if re.search(rf"\.{field}\b", each)]


def test_the_catalog_needs_these_templates() -> None:
    assert {
        ("v3.1", "plain"),
        ("v3.1", "thinking"),
        ("v3-0324", "plain"),
        ("r1-0528", "always-thinking"),
    } == FORMATS


@EACH
def test_no_newline_ends_a_template(prompt_format: str, variant: str) -> None:
    assert not template(prompt_format, variant)[-1].isspace()


@EACH
def test_only_a_variant_that_thinks_names_thinking_in_a_range_over_messages(
    prompt_format: str, variant: str
) -> None:
    found = uses(template(prompt_format, variant), "Thinking")
    assert bool(found) == (variant in {"thinking", "always-thinking"})
    for _, stack in found:
        assert "range .Messages" in stack
        assert "if false" in stack


@EACH
def test_the_marks_of_a_thought_stand_directly_beside_it(prompt_format: str, variant: str) -> None:
    text = template(prompt_format, variant)
    marked = "{{ if false }}<think>{{ .Thinking }}</think>{{ end }}" in text
    assert marked == (variant != "plain")


@EACH
def test_only_plain_names_suffix_and_never_prints_it(prompt_format: str, variant: str) -> None:
    found = uses(template(prompt_format, variant), "Suffix")
    assert found == ([(".Suffix", ("if false",))] if variant == "plain" else [])


@EACH
def test_only_thinking_follows_the_request(prompt_format: str, variant: str) -> None:
    assert bool(uses(template(prompt_format, variant), "Think")) == (variant == "thinking")


@EACH
def test_a_tool_round_trip_is_there_as_ollama_looks_for_it(
    prompt_format: str, variant: str
) -> None:
    text = template(prompt_format, variant)
    assert 'eq .Role "tool"' in COMMENT.sub("", text)
    assert uses(text, "Tools")
    assert uses(text, "ToolCalls")
    assert [each for each, _ in uses(text, "Parameters")] == [
        'template "parameters" .Function.Parameters'
    ]


@EACH
def test_every_variable_is_declared_before_it_is_used(prompt_format: str, variant: str) -> None:
    declared: set[str] = set()
    for action, _ in actions(template(prompt_format, variant)):
        left, sign, right = action.rpartition(":=")
        assert set(re.findall(r"\$\w+", right)) <= declared
        declared |= set(re.findall(r"\$\w+", left)) if sign else set()


@EACH
def test_bos_is_left_to_the_engine(prompt_format: str, variant: str) -> None:
    assert "begin▁of▁sentence" not in template(prompt_format, variant)


@EACH
def test_the_modelfile_parser_drops_nothing_of_a_template(prompt_format: str, variant: str) -> None:
    text = template(prompt_format, variant)
    assert [letter for letter in text if not letter.isprintable()] == ["\n"] * text.count("\n")
    assert '"""' not in text


@EACH
def test_marks_are_written_with_deepseeks_own_letters(prompt_format: str, variant: str) -> None:
    marks = set(re.findall(r"<[|｜].*?[|｜]>", COMMENT.sub("", template(prompt_format, variant))))
    tools = {f"<｜tool▁{name}｜>" for name in ("calls▁begin", "calls▁end", "sep")}
    tools |= {f"<｜tool▁{name}｜>" for name in ("call▁begin", "call▁end")}
    tools |= {f"<｜tool▁{name}｜>" for name in ("output▁begin", "output▁end")}
    if prompt_format != "v3.1":
        tools |= {f"<｜tool▁{name}｜>" for name in ("outputs▁begin", "outputs▁end")}
    assert marks == tools | {"<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"}


def test_the_variants_of_a_format_differ_in_their_heads_alone() -> None:
    plain, thinking = template("v3.1", "plain"), template("v3.1", "thinking")
    body = plain[plain.index("{{- /* DeepSeek-V3.1 and") :]
    assert thinking.endswith(body)
    assert plain != thinking


def test_every_variant_is_chosen_where_none_is_named() -> None:
    assert choose_variants(("plain", "thinking"), ()) == (VARIANTS["plain"], VARIANTS["thinking"])


def test_chosen_variants_keep_the_models_order_and_come_once() -> None:
    both = choose_variants(("plain", "thinking"), ("thinking", "plain", "thinking"))
    assert [each.name for each in both] == ["plain", "thinking"]
    assert choose_variants(("plain", "thinking"), ["thinking"]) == (VARIANTS["thinking"],)


def test_a_variant_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownVariantError, match="no variant 'thinking'") as caught:
        choose_variants(("plain",), ("plain", "thinking"))
    assert caught.value.hint == "It has: plain."


def test_no_two_variants_of_a_model_want_the_same_tag() -> None:
    for model in load_catalog().values():
        suffixes = [VARIANTS[name].tag_suffix for name in model.variants]
        assert suffixes[0] == ""
        assert len(set(suffixes)) == len(suffixes)


@pytest.mark.parametrize("model", load_catalog().values(), ids=load_catalog())
def test_the_modelfile_of_a_model_holds_what_the_catalog_says(model: CatalogModel) -> None:
    for name in model.variants:
        document = catalog_modelfile(model, VARIANTS[name], "./merged.gguf")
        assert document.template == template(model.format, name)
        assert (document.params, document.system) == (model.params, model.system)
        assert document.base == "./merged.gguf"
        assert document.comment.startswith(f"{model.title}, {name}: ")
