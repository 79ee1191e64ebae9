import pytest

from dsollama.catalog.models import (
    DEFAULT_MODEL,
    CatalogModel,
    Target,
    find_by_repository,
    find_model,
    load_catalog,
    resolve_target,
)
from dsollama.errors import UnknownModelError, UsageError

# Typed from the two documents: "DeepSeek-V3.1: ローカルでの実行方法" (V3.1 and Terminus) and
# "DeepSeek-V3-0324: ローカル実行方法". The R1-0528 row is facts/deepseek.md's table.
V31_SIZES = {
    "TQ1_0": 170,
    "IQ1_S": 185,
    "IQ1_M": 200,
    "IQ2_XXS": 216,
    "Q2_K_XL": 251,
    "IQ3_XXS": 273,
    "Q3_K_XL": 296,
    "Q4_K_XL": 384,
    "Q5_K_XL": 481,
}
V3_SIZES = {
    "IQ1_S": 173,
    "IQ1_M": 183,
    "IQ2_XXS": 203,
    "Q2_K_XL": 231,
    "Q3_K_XL": 320,
    "Q4_K_XL": 406,
}
SIZES = {"v3.1-terminus": V31_SIZES, "v3.1": V31_SIZES, "v3-0324": V3_SIZES, "r1-0528": {}}
REPOSITORIES = {
    "v3.1-terminus": ("unsloth/DeepSeek-V3.1-Terminus-GGUF",),
    "v3.1": ("unsloth/DeepSeek-V3.1-GGUF",),
    "v3-0324": ("unsloth/DeepSeek-V3-0324-GGUF", "unsloth/DeepSeek-V3-0324-GGUF-UD"),
    "r1-0528": ("unsloth/DeepSeek-R1-0528-GGUF",),
}
TEMPERATURES = {"v3.1-terminus": 0.6, "v3.1": 0.6, "v3-0324": 0.3, "r1-0528": 0.6}
NAMES = {
    "v3.1-terminus": ("DeepSeek-V3.1-Terminus", "deepseek-v3.1-terminus"),
    "v3.1": ("DeepSeek-V3.1", "deepseek-v3.1"),
    "v3-0324": ("DeepSeek-V3-0324", "deepseek-v3-0324"),
    "r1-0528": ("DeepSeek-R1-0528", "deepseek-r1-0528"),
}
VARIANTS = {
    "v3.1-terminus": ("v3.1", ("plain", "thinking")),
    "v3.1": ("v3.1", ("plain", "thinking")),
    "v3-0324": ("v3-0324", ("plain",)),
    "r1-0528": ("r1-0528", ("always-thinking",)),
}
EACH = pytest.mark.parametrize("model", load_catalog().values(), ids=load_catalog())


def test_the_catalog_holds_the_models_of_the_documents_the_default_first() -> None:
    assert list(load_catalog()) == ["v3.1-terminus", "v3.1", "v3-0324", "r1-0528"]
    assert DEFAULT_MODEL == "v3.1-terminus"


@EACH
def test_sizes_are_the_documents_sizes_on_disk(model: CatalogModel) -> None:
    assert dict(model.sizes) == SIZES[model.key]


@EACH
def test_repositories_are_the_documents(model: CatalogModel) -> None:
    assert model.repositories == REPOSITORIES[model.key]


@EACH
def test_names_are_deepseeks(model: CatalogModel) -> None:
    assert (model.title, model.name) == NAMES[model.key]


@EACH
def test_formats_and_variants_follow_how_the_model_thinks(model: CatalogModel) -> None:
    assert (model.format, model.variants) == VARIANTS[model.key]


@EACH
def test_sampling_is_the_documents_and_otherwise_llama_cpps(model: CatalogModel) -> None:
    assert dict(model.params) == {
        "temperature": TEMPERATURES[model.key],
        "top_p": 0.95,
        "min_p": 0.01,
        "num_ctx": 16384,
        "top_k": 40,  # llama.cpp's default, common/common.h
        "repeat_penalty": 1.0,  # llama.cpp's default
    }


def test_numbers_that_are_whole_in_ollama_are_whole_here() -> None:
    for model in load_catalog().values():
        assert isinstance(model.params["num_ctx"], int)
        assert isinstance(model.params["top_k"], int)


@pytest.mark.parametrize("key", ["v3.1", "v3.1-terminus"])
def test_the_context_and_memory_of_v3_1_are_the_documents(key: str) -> None:
    assert find_model(key).max_context == 128 * 1024
    assert find_model(key).recommended_ram_gb == 226


@pytest.mark.parametrize("key", ["v3-0324", "r1-0528"])
def test_no_memory_is_recommended_where_the_documents_name_none(key: str) -> None:
    assert find_model(key).recommended_ram_gb == 0
    assert find_model(key).max_context >= find_model(key).params["num_ctx"]


@pytest.mark.parametrize("key", ["v3.1-terminus", "v3.1", "v3-0324"])
def test_the_recommended_quant_is_the_dynamic_2_7_bit_one(key: str) -> None:
    assert find_model(key).recommended == "UD-Q2_K_XL"


def test_only_v3_0324_has_a_system_prompt_and_it_is_the_documents_word_for_word() -> None:
    systems = {key: model.system for key, model in load_catalog().items() if model.system}
    assert systems == {
        "v3-0324": "该助手为DeepSeek Chat，由深度求索公司创造。\n今天是3月24日，星期一。"
    }


@EACH
def test_a_model_is_found_by_key_name_and_title_in_any_case(model: CatalogModel) -> None:
    for spelled in (model.key, model.name, model.title, model.key.upper(), model.title.lower()):
        assert find_model(spelled) is model


@pytest.mark.parametrize("key", ["", "v3", "r1", "deepseek", "v3.1 ", "unsloth/DeepSeek-V3.1-GGUF"])
def test_an_unknown_model_is_told_what_there_is(key: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        find_model(key)
    assert all(known in caught.value.hint for known in load_catalog())


@EACH
def test_a_repository_finds_its_model_in_any_case(model: CatalogModel) -> None:
    for repository in model.repositories:
        assert find_by_repository(repository) is model
        assert find_by_repository(repository.upper()) is model


def test_a_repository_of_others_finds_no_model() -> None:
    assert find_by_repository("bartowski/DeepSeek-V3.1-GGUF") is None


def test_a_quant_alone_means_the_default_model() -> None:
    assert resolve_target("UD-Q2_K_XL", None) == Target(
        "unsloth/DeepSeek-V3.1-Terminus-GGUF", (), "UD-Q2_K_XL", find_model(DEFAULT_MODEL)
    )


def test_a_quant_with_a_model_means_its_repositories() -> None:
    assert resolve_target("q2_k_xl", "DeepSeek-V3-0324") == Target(
        "unsloth/DeepSeek-V3-0324-GGUF",
        ("unsloth/DeepSeek-V3-0324-GGUF-UD",),
        "q2_k_xl",
        find_model("v3-0324"),
    )


@pytest.mark.parametrize("start", ["", "https://"])
@pytest.mark.parametrize("host", ["hf.co", "huggingface.co"])
@pytest.mark.parametrize("quant", ["", "UD-Q2_K_XL", "BF16"])
def test_an_address_is_taken_apart_and_known_repositories_keep_their_model(
    start: str, host: str, quant: str
) -> None:
    end = f":{quant}" if quant else ""
    known = resolve_target(f"{start}{host}/unsloth/deepseek-v3.1-gguf{end}", None)
    assert known == Target("unsloth/deepseek-v3.1-gguf", (), quant, find_model("v3.1"))
    other = resolve_target(f"{start}{host}/someone/Other_Model.v2-GGUF{end}", None)
    assert other == Target("someone/Other_Model.v2-GGUF", (), quant, None)


def test_an_address_together_with_a_model_is_refused() -> None:
    with pytest.raises(UsageError, match="already names the model"):
        resolve_target("hf.co/unsloth/DeepSeek-V3.1-GGUF:TQ1_0", "v3.1")


@pytest.mark.parametrize(
    "typed",
    [
        "unsloth/DeepSeek-V3.1-GGUF",
        "hf.co/unsloth",
        "hf.co/unsloth/DeepSeek-V3.1-GGUF:",
        "hf.co/unsloth/DeepSeek-V3.1-GGUF/tree/main/UD-IQ1_S",
        "hf.co/../DeepSeek-V3.1-GGUF:TQ1_0",
        "hf.co/unsloth/..:TQ1_0",
        "hf.co/unsloth/a:../../b",
        "http://hf.co.example/unsloth/DeepSeek-V3.1-GGUF:TQ1_0",
        "https://example.com/unsloth/DeepSeek-V3.1-GGUF:TQ1_0",
        "hf.co/unsloth/DeepSeek-V3.1-GGUF:TQ1_0\n",
    ],
)
def test_what_is_neither_a_quant_nor_an_address_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="neither a quant nor an address"):
        resolve_target(typed, None)


def test_an_unknown_model_is_refused_before_the_hub_is_asked() -> None:
    with pytest.raises(UnknownModelError, match="'v4'"):
        resolve_target("UD-Q2_K_XL", "v4")
