import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.errors import MissingShardError
from dsollama.gguf.shards import ShardSet, find_shard_sets, shard_file_name

STEM = "DeepSeek-V3.1-Terminus-UD-Q2_K_XL"


def shards(prefix: str, count: int, *numbers: int) -> list[str]:
    return [f"{prefix}-{n:05d}-of-{count:05d}.gguf" for n in numbers or range(1, count + 1)]


def found(*paths: str) -> list[tuple[str, tuple[str, ...], int, bool]]:
    return [(each.prefix, each.paths, each.count, each.split) for each in find_shard_sets(paths)]


def test_a_shard_is_named_as_llama_gguf_split_names_it() -> None:
    assert shard_file_name(STEM, 1, 6) == f"{STEM}-00001-of-00006.gguf"
    assert shard_file_name("a b", 123, 12345) == "a b-00123-of-12345.gguf"


def test_a_folder_per_quant_gives_a_set_each_with_its_shards_in_order() -> None:
    q2, q4 = shards(f"UD-Q2_K_XL/{STEM}", 6), shards("Q4_K_M/DeepSeek-V3.1-Q4_K_M", 9)
    assert found(*reversed(q2), "README.md", *q4) == [
        ("Q4_K_M/DeepSeek-V3.1-Q4_K_M", tuple(q4), 9, True),
        (f"UD-Q2_K_XL/{STEM}", tuple(q2), 6, True),
    ]


def test_a_single_file_at_the_root_is_a_set_of_one_that_is_not_split() -> None:
    name = "DeepSeek-V3.1-Terminus-UD-TQ1_0"
    sets = find_shard_sets([f"{name}.gguf", ".gitattributes", "config.json", "params", "template"])
    assert sets == [ShardSet(name, (f"{name}.gguf",), 1, split=False)]
    assert sets[0].stem == name
    sets[0].require_complete()


def test_a_set_of_one_shard_is_split() -> None:
    assert found(*shards("a", 1)) == [("a", ("a-00001-of-00001.gguf",), 1, True)]


@pytest.mark.parametrize(
    "path",
    [
        "mmproj-F16.gguf",
        "vision/MMPROJ-model.gguf",
        "imatrix_unsloth.gguf",
        "x/imatrix-00001-of-00002.gguf",
        "imatrix_unsloth.dat",
        "model.gguf.part",
        "gguf",
        "model.safetensors",
    ],
)
def test_what_is_not_a_model_is_left_out(path: str) -> None:
    assert found(path, "a.gguf") == [("a", ("a.gguf",), 1, False)]


def test_a_folder_named_mmproj_does_not_hide_a_model() -> None:
    assert found("mmproj/a.gguf") == [("mmproj/a", ("mmproj/a.gguf",), 1, False)]


def test_the_same_prefix_with_another_count_is_another_set() -> None:
    assert [(prefix, count) for prefix, _, count, _ in found(*shards("a", 2), *shards("a", 3))] == [
        ("a", 2),
        ("a", 3),
    ]


def test_shards_of_different_folders_are_never_one_set() -> None:
    halves = find_shard_sets(["old/a-00001-of-00002.gguf", "new/a-00002-of-00002.gguf"])
    assert [each.prefix for each in halves] == ["new/a", "old/a"]
    for half in halves:
        with pytest.raises(MissingShardError):
            half.require_complete()


@pytest.mark.parametrize(
    "name",
    [
        "a-00001-of-00000",
        "a-00000-of-00000",
        "a-1-of-2",
        "a-000001-of-000002",
        "-00001-of-00002",
        "a-00001-of-00002-final",
    ],
)
def test_a_name_that_counts_to_nothing_is_a_file_of_its_own(name: str) -> None:
    assert found(f"{name}.gguf") == [(name, (f"{name}.gguf",), 1, False)]


@pytest.mark.parametrize("prefix", ["a", f"UD-Q2_K_XL/{STEM}", "x-00001-of-00002/y", "ü/モデル"])
def test_a_complete_set_is_accepted(prefix: str) -> None:
    (whole,) = find_shard_sets(shards(prefix, 3))
    whole.require_complete()
    assert whole.stem == prefix.rsplit("/", 1)[-1]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((2, 3), r"holds 2 \(missing: 1\)"),
        ((1, 2), r"holds 2 \(missing: 3\)"),
        ((3,), r"holds 1 \(missing: 1, 2\)"),
        ((1, 2, 2), r"holds 3 \(missing: 3\)"),
        ((1, 2, 3, 3), r"holds 4 \(missing: none\)"),
        ((1, 2, 4), r"holds 3 \(missing: 3\)"),
        ((0, 1, 2, 3), r"holds 4 \(missing: none\)"),
        ((0, 1, 2), r"holds 3 \(missing: 3\)"),
    ],
)
def test_an_incomplete_or_overfull_set_says_what_is_wrong(
    numbers: tuple[int, ...], said: str
) -> None:
    (part,) = find_shard_sets(shards("Q/a", 3, *numbers))
    with pytest.raises(MissingShardError, match=f"'a' says it has 3 shards.*{said}"):
        part.require_complete()


def test_only_the_first_missing_numbers_are_named() -> None:
    (part,) = find_shard_sets(shards("a", 99999, 1))
    with pytest.raises(MissingShardError, match=r"missing: 2, 3, 4, 5, 6\)"):
        part.require_complete()


@given(st.text(min_size=1), st.integers(1, 30), st.data())
def test_a_split_model_in_any_order_is_found_again(
    stem: str, count: int, data: st.DataObject
) -> None:
    paths = [f"q/x{shard_file_name(stem, n, count)}" for n in range(1, count + 1)]
    order = data.draw(st.permutations(paths))
    (whole,) = find_shard_sets(order)
    assert (whole.prefix, whole.paths, whole.count) == (f"q/x{stem}", tuple(paths), count)
    whole.require_complete()
    if count > 1:
        (part,) = find_shard_sets(order[1:])
        with pytest.raises(MissingShardError):
            part.require_complete()
