import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.catalog.models import find_model
from dsollama.manifest.layers import (
    MODEL,
    Layer,
    ModelFacts,
    config_layer,
    human_number,
    layer_entry,
    manifest_bytes,
    small_layers,
)
from dsollama.manifest.modelfile import Modelfile

# sha256 of "abc", FIPS 180-2's own example
ABC = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

# Printed by Ollama 0.33.0's fs/ggml FileType(n).String() for n of 0 to 44; all others "unknown".
OLLAMA_FILE_TYPES = {
    1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M",
    18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS",
    24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS",
    31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
}  # fmt: skip


def config(file_type: int | None) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(config_layer(ModelFacts("x", 1, file_type)).data)
    return decoded


def test_a_layer_knows_its_digest_and_size() -> None:
    layer = Layer("some/type", b"abc")
    assert (layer.digest, layer.size) == (ABC, 3)
    assert layer.entry() == {"mediaType": "some/type", "digest": ABC, "size": 3}


def test_template_and_system_are_their_text_in_utf_8_and_nothing_more() -> None:
    layers = small_layers(Modelfile("m", "<｜User｜>\n", {}, "系统\n"))
    assert [(layer.media_type, layer.data) for layer in layers] == [
        ("application/vnd.ollama.image.template", "<｜User｜>\n".encode()),
        ("application/vnd.ollama.image.system", "系统\n".encode()),
    ]


def test_the_layers_stand_in_the_order_of_ollama_create() -> None:
    layers = small_layers(Modelfile("m", "t", {"top_k": 40}, "s"))
    assert [layer.media_type.rsplit(".", 1)[-1] for layer in layers] == [
        "template",
        "system",
        "params",
    ]


def test_what_is_not_set_makes_no_layer() -> None:
    assert small_layers(Modelfile("m")) == ()
    assert [layer.data for layer in small_layers(Modelfile("m", system="s"))] == [b"s"]


def test_params_are_gos_json_sorted_with_whole_numbers_whole_and_a_newline() -> None:
    (layer,) = small_layers(Modelfile("m", params=find_model("v3.1-terminus").params))
    assert layer.media_type == "application/vnd.ollama.image.params"
    assert layer.data == (
        b'{"min_p":0.01,"num_ctx":16384,"repeat_penalty":1,"temperature":0.6,"top_k":40,'
        b'"top_p":0.95}\n'
    )
    (layer,) = small_layers(Modelfile("m", params=find_model("v3-0324").params))
    assert layer.data == (
        b'{"min_p":0.01,"num_ctx":16384,"repeat_penalty":1,"temperature":0.3,"top_k":40,'
        b'"top_p":0.95}\n'
    )


# Go's encoding/json was run: 0.00001 where Python's json writes 1e-05, and 1e-7 for 1e-07.
def test_small_numbers_are_written_as_go_writes_them() -> None:
    (layer,) = small_layers(Modelfile("m", params={"min_p": 1e-5, "typical_p": 1e-7}))
    assert layer.data == b'{"min_p":0.00001,"typical_p":1e-7}\n'


def test_the_config_has_gos_order_of_keys_and_a_newline() -> None:
    layer = config_layer(ModelFacts("deepseek2", 671_026_419_200, 10))
    assert layer.media_type == "application/vnd.docker.container.image.v1+json"
    assert layer.data == (
        b'{"model_format":"gguf","model_family":"deepseek2","model_families":["deepseek2"],'
        b'"model_type":"671.0B","file_type":"Q2_K","architecture":"amd64","os":"linux"}\n'
    )


@pytest.mark.parametrize("number", [n for n in range(1, 45) if n not in {38, 39, 40}])
def test_a_file_type_is_called_what_ollama_calls_it(number: int) -> None:
    assert config(number)["file_type"] == OLLAMA_FILE_TYPES.get(number, "unknown")


# Ollama's KV().FileType() takes 0 for "absent": an F32 model is "unknown" to it.
@pytest.mark.parametrize(
    ("number", "name"), [(0, "unknown"), (38, "MXFP4_MOE"), (39, "NVFP4"), (40, "Q1_0")]
)
def test_a_rarer_file_type_is_called_what_ollama_calls_it(number: int, name: str) -> None:
    assert config(number)["file_type"] == name


@pytest.mark.parametrize("number", [None, -1, 1024, 2**31])
def test_an_absent_or_unheard_of_file_type_is_unknown(number: int | None) -> None:
    assert config(number)["file_type"] == "unknown"


def test_the_manifest_is_gos_json_with_the_weights_first() -> None:
    model = layer_entry(MODEL, "sha256:" + "1" * 64, 2**40)
    small = (Layer("a/b", b"abc"), Layer("c/d", b""))
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    text = manifest_bytes(Layer("e/f", b"abc"), model, small).decode()
    assert text == (
        '{"schemaVersion":2,'
        '"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        '"config":{"mediaType":"e/f","digest":"' + ABC + '","size":3},'
        '"layers":[{"mediaType":"application/vnd.ollama.image.model",'
        '"digest":"sha256:' + "1" * 64 + '","size":1099511627776},'
        '{"mediaType":"a/b","digest":"' + ABC + '","size":3},'
        '{"mediaType":"c/d","digest":"' + empty + '","size":0}]}\n'
    )


# Printed by Ollama 0.33.0's format.HumanNumber.
@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (1499, "1K"),
        (1500, "2K"),
        (2500, "2K"),
        (999_499, "999K"),
        (999_500, "1000K"),
        (999_999, "1000K"),
        (1_000_000, "1M"),
        (1_000_001, "1.00M"),
        (12_340_000, "12.34M"),
        (125_000_000, "125M"),
        (500_550_000, "500.55M"),
        (999_994_999, "999.99M"),
        (999_999_999, "1000.00M"),
        (1_000_000_000, "1B"),
        (1_000_000_001, "1.0B"),
        (2_800_000_000, "2.8B"),
        (2_850_000_000, "2.9B"),
        (671_000_000_000, "671B"),
        (671_026_419_200, "671.0B"),
        (684_531_386_000, "684.5B"),
        (1_000_000_000_000, "1000B"),
    ],
)
def test_a_number_of_parameters_reads_as_in_ollama(count: int, text: str) -> None:
    assert human_number(count) == text


@given(
    st.dictionaries(
        st.sampled_from(["temperature", "top_p", "top_k", "num_ctx"]),
        st.integers(0, 2**31) | st.floats(0.001, 1000),
        min_size=1,
    )
)
def test_params_keep_every_number_whatever_their_order(params: dict[str, float]) -> None:
    (layer,) = small_layers(Modelfile("m", params=params))
    assert json.loads(layer.data) == params
    assert small_layers(Modelfile("m", params=dict(reversed(params.items())))) == (layer,)
