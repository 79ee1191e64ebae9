import pytest

from dsollama.manifest.modelfile import Modelfile, format_number

# Ollama 0.33.0's parser (parser/parser.go) was run on the document of the first test and gave
# back exactly its base, template, system and parameters.


def test_a_document_has_its_parts_in_a_fixed_order_and_ends_with_a_newline() -> None:
    document = Modelfile(
        base="/a b/x.gguf",
        template='"a" {{ .X }}\n\ttail"',
        params={"temperature": 0.6, "num_ctx": 16384, "repeat_penalty": 1.0},
        system="该助手\n今天",
        comment="one\n\ntwo ",
    )
    assert document.render() == (
        "# one\n"
        "#\n"
        "# two\n"
        "FROM /a b/x.gguf\n"
        'TEMPLATE """"a" {{ .X }}\n\ttail""""\n'
        'SYSTEM """该助手\n今天"""\n'
        "PARAMETER num_ctx 16384\n"
        "PARAMETER repeat_penalty 1\n"
        "PARAMETER temperature 0.6\n"
    )


def test_only_from_is_needed() -> None:
    assert Modelfile("deepseek-v3.1:latest").render() == "FROM deepseek-v3.1:latest\n"


def test_an_empty_template_is_written_and_an_empty_system_prompt_is_not() -> None:
    assert Modelfile("m", template="", system="").render() == 'FROM m\nTEMPLATE """"""\n'


def test_the_template_is_written_without_a_newline_of_our_own() -> None:
    assert "TEMPLATE x\n" in Modelfile("m", template="x").render()
    assert 'TEMPLATE """x\n"""\n' in Modelfile("m", template="x\n").render()


# Ollama 0.33.0's parser (run) drops what Go calls not printable, such as U+3000 of Chinese text.
@pytest.mark.parametrize("letter", ["\u3000", "\u00a0", "\u200d", "\0"])
def test_characters_that_ollamas_parser_drops_are_refused(letter: str) -> None:
    with pytest.raises(ValueError, match="character"):
        Modelfile("m", system=f"a{letter}b").render()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), (0, "0"), (0.0, "0"), (16384, "16384"), (0.6, "0.6"), (0.01, "0.01")],
)
def test_a_number_is_written_as_gos_json_writes_it(value: float, text: str) -> None:
    assert format_number(value) == text
