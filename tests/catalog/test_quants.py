from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.catalog.models import load_catalog
from dsollama.catalog.quants import match_quant, quant_label
from dsollama.errors import AmbiguousQuantError, UnknownQuantError, UsageError

# The labels of the V3.1 document, and Q2_K, which begins as another does.
LABELS = (
    "BF16", "IQ4_NL", "Q2_K", "Q4_1", "Q4_K_M", "UD-IQ1_M", "UD-IQ1_S", "UD-IQ2_XXS",
    "UD-IQ3_XXS", "UD-Q2_K_XL", "UD-Q3_K_XL", "UD-Q4_K_XL", "UD-Q5_K_XL", "UD-TQ1_0",
)  # fmt: skip


@pytest.mark.parametrize(
    ("stem", "label"),
    [
        ("DeepSeek-V3.1-Terminus-UD-Q2_K_XL", "UD-Q2_K_XL"),
        ("DeepSeek-V3.1-UD-TQ1_0", "UD-TQ1_0"),
        ("DeepSeek-V3-0324-UD-IQ2_XXS", "UD-IQ2_XXS"),
        ("DeepSeek-V3.1-IQ4_NL", "IQ4_NL"),
        ("DeepSeek-V3.1-Q4_1", "Q4_1"),
        ("DeepSeek-V3.1-BF16", "BF16"),
        ("DeepSeek-R1-0528-Q8_0", "Q8_0"),
        ("deepseek-r1.q4_k_m", "q4_k_m"),
        ("DeepSeek-V3_FP16", "FP16"),
        ("gpt-oss-mxfp4", "mxfp4"),
        ("model-MXFP4_MOE", "MXFP4_MOE"),
        ("Q6_K", "Q6_K"),
        ("UD_Q2_K_XL", "UD_Q2_K_XL"),
        ("merged_file", "merged_file"),
        ("DeepSeek-V3.1", "DeepSeek-V3.1"),
        ("DeepSeek-V3.1-Q4_K_M-v2", "DeepSeek-V3.1-Q4_K_M-v2"),
        ("ZQ4_0", "ZQ4_0"),
        ("", ""),
    ],
)
def test_a_label_is_read_from_the_end_of_a_stem(stem: str, label: str) -> None:
    assert quant_label(stem) == label


@pytest.mark.parametrize("label", LABELS)
def test_every_label_of_a_repository_is_read_from_its_file_and_matches_itself(label: str) -> None:
    assert quant_label(f"DeepSeek-V3.1-Terminus-{label}") == label
    assert match_quant(label, LABELS) == label


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("ud-q2_k_xl", "UD-Q2_K_XL"),
        ("UD_Q2_K_XL", "UD-Q2_K_XL"),
        ("ud-q2-k-xl", "UD-Q2_K_XL"),
        ("Q2_K_XL", "UD-Q2_K_XL"),
        ("q2-k-xl", "UD-Q2_K_XL"),
        ("tq1_0", "UD-TQ1_0"),
        ("q2_k", "Q2_K"),
        ("bf16", "BF16"),
    ],
)
def test_case_dashes_and_a_missing_ud_do_not_matter(typed: str, label: str) -> None:
    assert match_quant(typed, LABELS) == label


def test_every_quant_of_the_catalog_matches_its_dynamic_label() -> None:
    for model in load_catalog().values():
        for quant in model.sizes:
            assert match_quant(quant, LABELS) == f"UD-{quant}"


def test_an_exact_label_wins_over_one_that_differs_by_ud() -> None:
    labels = ["UD-Q4_K_M", "Q4_K_M"]
    assert match_quant("q4_k_m", labels) == "Q4_K_M"
    assert match_quant("ud-q4_k_m", labels) == "UD-Q4_K_M"


def test_a_ud_that_was_typed_is_not_dropped() -> None:
    with pytest.raises(UnknownQuantError, match="Did you mean Q4_K_M"):
        match_quant("UD-Q4_K_M", ["Q4_K_M", "UD-Q2_K_XL"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Q2_K_XXL", "UD-Q2_K_XL"),
        ("UD-Q2KXL", "UD-Q2_K_XL"),
        ("IQ4-NLL", "IQ4_NL"),
        ("Q4_K_S", "Q4_K_M"),
        ("Q3_K_XS", "UD-Q3_K_XL"),
    ],
)
def test_an_unknown_quant_is_told_a_near_one(typed: str, meant: str) -> None:
    near = {"UD-Q2_K_XL", "UD-Q3_K_XL", "IQ4_NL", "Q4_K_M"}
    with pytest.raises(UnknownQuantError, match=f"no quant '{typed}'. Did you mean {meant}"):
        match_quant(typed, near)


def test_an_unknown_quant_unlike_any_other_is_told_none() -> None:
    with pytest.raises(UnknownQuantError) as caught:
        match_quant("zzz", LABELS)
    assert str(caught.value) == "The repository holds no quant 'zzz'."


def test_two_spellings_of_one_label_are_ambiguous() -> None:
    with pytest.raises(AmbiguousQuantError, match="UD-Q2_K_XL or UD_Q2_K_XL"):
        match_quant("q2_k_xl", ["UD-Q2_K_XL", "UD_Q2_K_XL", "Q4_0"])


# Otherwise neither of two labels that differ in case alone could be installed.
def test_a_label_typed_letter_for_letter_wins_over_its_other_spellings() -> None:
    assert match_quant("q4_k_m", ["q4_k_m", "Q4_K_M"]) == "q4_k_m"


def test_nothing_typed_means_the_only_quant_there_is() -> None:
    assert match_quant("", ["UD-TQ1_0"]) == "UD-TQ1_0"
    assert match_quant("", ["UD-TQ1_0", "UD-TQ1_0"]) == "UD-TQ1_0"


def test_nothing_typed_is_ambiguous_where_there_is_a_choice() -> None:
    with pytest.raises(AmbiguousQuantError, match="holds several quants"):
        match_quant("", LABELS)


@given(st.sampled_from(LABELS), st.data())
def test_any_spelling_of_a_label_finds_it(label: str, data: st.DataObject) -> None:
    letters = [
        data.draw(st.sampled_from("-_" if each in "-_" else (each.lower(), each))) for each in label
    ]
    assert match_quant("".join(letters), LABELS) == label


@given(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=5))
def test_any_text_gives_a_label_of_the_repository_or_a_usage_error(
    typed: str, labels: list[str]
) -> None:
    with suppress(UsageError):
        assert match_quant(typed, labels) in labels
