from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from dsollama.gguf.tensor_types import TENSOR_TYPES

Q8_1 = 9
# Types that a gguf package of some age does not know: (name, elements of a block, its bytes) from
# ggml's ggml-common.h. A Q1_0 block is a half float and 128 / 8 bytes, a Q2_0 one 64 / 4.
NEWER = {41: ("Q1_0", 128, 2 + 16), 42: ("Q2_0", 64, 2 + 16)}


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert theirs.pop(Q8_1) == ("Q8_1", 32, 40)
    ours = {number: tuple(known) for number, known in TENSOR_TYPES.items()}
    assert ours == NEWER | theirs


def test_every_type_of_the_gguf_package_is_known_except_q8_1() -> None:
    assert {int(kind) for kind in GGMLQuantizationType} - set(TENSOR_TYPES) == {Q8_1}


def test_the_types_that_deepseeks_dynamic_quants_use_take_the_bits_they_are_named_for() -> None:
    bits = {known.name: 8 * known.size / known.block for known in TENSOR_TYPES.values()}
    wanted = {"TQ1_0": 1.6875, "IQ1_S": 1.5625, "IQ1_M": 1.75, "Q2_K": 2.625, "Q8_0": 8.5}
    assert {name: bits[name] for name in wanted} == wanted
