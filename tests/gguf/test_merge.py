import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.errors import ForeignShardError, MalformedGgufError
from dsollama.gguf import encode as gg
from dsollama.gguf.header import Header, parse_header
from dsollama.gguf.merge import MergedLayout, merge_layout
from dsollama.gguf.tensor_types import TENSOR_TYPES

F32, F16, Q8_0 = 0, 1, 8
NAME = gg.encode_key_value("general.name", gg.STRING, "x")
WORDS = gg.encode_key_array("words", gg.STRING, ["a", "bc"])


@dataclass(frozen=True)
class Given:
    """A tensor of a shard to be written."""

    name: str
    dims: tuple[int, ...]
    kind: int = F32

    @property
    def data(self) -> bytes:
        size = self.elements // TENSOR_TYPES[self.kind].block * TENSOR_TYPES[self.kind].size
        seed = hashlib.sha256(self.name.encode()).digest().replace(b"\0", b"\1")
        return (seed * (size // len(seed) + 1))[:size]

    @property
    def elements(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        return count


def split_keys(number: int, count: int, total: int) -> list[bytes]:
    return [
        gg.encode_key_value("split.no", gg.UINT16, number),
        gg.encode_key_value("split.count", gg.UINT16, count),
        gg.encode_key_value("split.tensors.count", gg.INT32, total),
    ]


def shard(tensors: list[Given], entries: list[bytes]) -> bytes:
    infos, data = [], b""
    for each in tensors:
        infos.append(gg.encode_tensor_info(each.name.encode(), each.dims, each.kind, len(data)))
        data += each.data + bytes(-len(each.data) % 32)
    return gg.encode_header(entries, infos) + data


def model(*groups: list[Given], first: tuple[bytes, ...] = (NAME, WORDS)) -> list[bytes]:
    total = sum(map(len, groups))
    return [
        shard(group, [*(() if number else first), *split_keys(number, len(groups), total)])
        for number, group in enumerate(groups)
    ]


def lay_out(files: list[bytes]) -> MergedLayout:
    headers = [parse_header(file, len(file)) for file in files]
    return merge_layout(headers, [len(file) for file in files])


def carry_out(layout: MergedLayout, files: list[bytes]) -> bytes:
    """Copy the spans; what no span covers stays zero."""
    merged = bytearray(layout.size)
    merged[: len(layout.header)] = layout.header
    for span in layout.spans:
        source = files[span.file][span.source : span.source + span.size]
        assert len(source) == span.size
        merged[span.target : span.target + span.size] = source
    assert len(merged) == layout.size
    return bytes(merged)


def tensor_bytes(file: bytes, header: Header) -> dict[str, bytes]:
    starts = {each.name.decode(): header.data_start + each.offset for each in header.tensors}
    return {
        each.name.decode(): file[starts[each.name.decode()] :][: each.size]
        for each in header.tensors
    }


def check_merge(layout: MergedLayout, files: list[bytes], tensors: list[Given]) -> Header:
    merged = carry_out(layout, files)
    header = parse_header(merged, len(merged))
    assert header.raw == layout.header
    assert header.data_start + header.padded_data_size == layout.size
    assert tensor_bytes(merged, header) == {each.name: each.data for each in tensors}
    assert [(t.name.decode(), t.elements, t.kind) for t in header.tensors] == [
        (each.name, each.elements, each.kind) for each in tensors
    ]
    assert layout.header_sha256 == hashlib.sha256(merged[: header.data_start]).hexdigest()
    covers = [(header.data_start + t.offset, t.size) for t in header.tensors if t.size]
    assert_tiles([(0, header.data_start), *covers, *layout.gaps], layout.size)
    assert all(merged[at : at + size] == bytes(size) for at, size in layout.gaps)
    return header


def assert_tiles(runs: list[tuple[int, int]], size: int) -> None:
    at = 0
    for start, length in sorted(runs):
        assert start == at
        assert length > 0
        at += length
    assert at == size


FIRST = [Given("a", (5,)), Given("b", (32, 3), Q8_0)]
SECOND = [Given("c", (7, 2, 3), F16)]
THIRD = [Given("d", (1,)), Given("e", (64,)), Given("f", (3, 3))]


def test_the_pieces_tile_the_merged_file_after_its_header() -> None:
    files = model(FIRST, SECOND, THIRD)
    layout = lay_out(files)
    assert [span.file for span in layout.spans] == [0, 1, 2]
    runs = [(span.target, span.size) for span in layout.spans]
    assert_tiles([(0, len(layout.header)), *runs], layout.size)
    check_merge(layout, files, FIRST + SECOND + THIRD)


def test_the_gguf_package_finds_every_tensor_in_the_merged_file(tmp_path: Path) -> None:
    files = model(FIRST, SECOND, THIRD)
    path = tmp_path / "merged.gguf"
    path.write_bytes(carry_out(lay_out(files), files))
    found = {each.name: each for each in gguf.GGUFReader(path).tensors}
    for each in FIRST + SECOND + THIRD:
        assert found[each.name].data.tobytes() == each.data
        assert found[each.name].shape.tolist() == list(each.dims)


def test_split_count_moves_to_the_end_as_0_and_other_keys_stay_in_place() -> None:
    files = model(FIRST, SECOND)
    header = check_merge(lay_out(files), files, FIRST + SECOND)
    assert [header.raw[entry.start : entry.end] for entry in header.key_values] == [
        NAME,
        WORDS,
        gg.encode_key_value("split.no", gg.UINT16, 0),
        gg.encode_key_value("split.tensors.count", gg.INT32, 3),
        gg.encode_key_value("split.count", gg.UINT16, 0),
    ]


def test_tensor_offsets_are_rebased_by_the_padded_data_before_them() -> None:
    files = model(FIRST, SECOND, THIRD)
    header = check_merge(lay_out(files), files, FIRST + SECOND + THIRD)
    offsets = [tensor.offset for tensor in header.tensors]
    # 5 f32 = 20 -> 32; 3 blocks of 34 = 102 -> 128; 42 f16 = 84 -> 96; 4 -> 32; 256
    assert offsets == [0, 32, 160, 256, 288, 544]


def test_a_first_shard_without_tensors_gives_no_piece() -> None:
    files = model([], SECOND, THIRD)
    layout = lay_out(files)
    assert [span.file for span in layout.spans] == [1, 2]
    check_merge(layout, files, SECOND + THIRD)


def test_one_shard_merges_into_itself() -> None:
    files = model(FIRST)
    check_merge(lay_out(files), files, FIRST)


def test_a_version_2_shard_merges_into_version_3() -> None:
    files = model(FIRST, SECOND)
    old = files[0][:4] + struct.pack("<I", 2) + files[0][8:]
    assert lay_out([old, files[1]]) == lay_out(files)


def test_trailing_dimensions_of_1_are_left_out_as_ggml_does() -> None:
    (file,) = model([Given("a", (5,))])
    info = gg.encode_string("a") + struct.pack("<I4QIQ", 4, 5, 1, 1, 1, F32, 0)
    long = gg.encode_header([NAME, WORDS, *split_keys(0, 1, 1)], [info]) + bytes(32)
    assert parse_header(long, len(long)).tensors[0].dims == (5, 1, 1, 1)
    assert lay_out([long]).header == lay_out([file]).header


@pytest.mark.parametrize("lost", [1, 12])
def test_padding_that_a_shard_lacks_at_its_end_is_zero_in_the_merged_file(lost: int) -> None:
    whole = model(FIRST[:1], SECOND, THIRD[:1])
    files = [file[:-lost] for file in whole]
    layout = lay_out(files)
    assert carry_out(layout, files) == carry_out(lay_out(whole), whole)
    check_merge(layout, files, [*FIRST[:1], *SECOND, *THIRD[:1]])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_bytes_after_the_last_tensor_are_refused(place: int) -> None:
    files = model(FIRST, SECOND, THIRD)
    files[place] += bytes(1)
    with pytest.raises(MalformedGgufError, match=f"Shard {place + 1} has 1 bytes after"):
        lay_out(files)


def test_an_alignment_of_32_may_be_stated() -> None:
    stated = gg.encode_key_value("general.alignment", gg.UINT32, 32)
    files = model(FIRST, SECOND, first=(stated,))
    check_merge(lay_out(files), files, FIRST + SECOND)


@pytest.mark.parametrize("value", [1, 8, 64])
def test_another_alignment_is_refused(value: int) -> None:
    other = gg.encode_key_value("general.alignment", gg.UINT32, value)
    files = model([], SECOND, first=(other,))
    files[0] += bytes(-len(files[0]) % value)
    with pytest.raises(MalformedGgufError, match=f"Shard 1 is aligned to {value} bytes"):
        lay_out(files)


FOREIGN = {
    "of a wrong number": (split_keys(2, 2, 3), SECOND, "Shard 2 of 2 calls itself number 3 of 2"),
    "with the number of another": (split_keys(0, 2, 3), SECOND, "itself number 1 of 2"),
    "of another count": (split_keys(1, 3, 3), SECOND, "calls itself number 2 of 3"),
    "of a model of another size": (
        split_keys(1, 2, 4),
        SECOND,
        "Shard 2 belongs to a model of 4 tensors.*hold 3",
    ),
    "that repeats a tensor": (
        split_keys(1, 2, 3),
        [Given("a", (1,))],
        "Shard 2 repeats the tensor 'a'",
    ),
    "with a tensor too many": (
        split_keys(1, 2, 3),
        THIRD,
        "Shard 1 belongs to a model of 3 tensors.*hold 5",
    ),
    "that is not split": ([NAME], SECOND, "calls itself number none of None"),
    "without a total": (split_keys(1, 2, 3)[:2], SECOND, "Shard 2 belongs to a model of None"),
    "whose number is text": (
        [gg.encode_key_value("split.no", gg.STRING, "1"), *split_keys(1, 2, 3)[1:]],
        SECOND,
        "calls itself number none of 2",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_second_shard_that_is_foreign_is_refused(name: str) -> None:
    entries, tensors, said = FOREIGN[name]
    with pytest.raises(ForeignShardError, match=said):
        lay_out([model(FIRST, SECOND)[0], shard(tensors, entries)])


def test_shards_in_another_order_or_number_are_refused() -> None:
    files = model(FIRST, SECOND, THIRD)
    for wrong in (files[::-1], files[:2], [files[0], files[2], files[1]], [*files, files[2]]):
        with pytest.raises(ForeignShardError):
            lay_out(wrong)


ROWS = {F32: 1, F16: 1, Q8_0: 32, 12: 256}
SHAPES = st.tuples(
    st.sampled_from(sorted(ROWS)), st.lists(st.integers(0, 5), min_size=1, max_size=4)
)


@given(st.lists(st.lists(SHAPES, max_size=4), min_size=1, max_size=6), st.integers(0, 31))
def test_any_model_merges_into_its_own_tensors(
    shapes: list[list[tuple[int, list[int]]]], lost: int
) -> None:
    groups = [
        [
            Given(f"t{number}.{index}", (dims[0] * ROWS[kind], *dims[1:]), kind)
            for index, (kind, dims) in enumerate(group)
        ]
        for number, group in enumerate(shapes)
    ]
    files = model(*groups)
    tensors = [each for group in groups for each in group]
    if groups[-1]:
        padding = -len(groups[-1][-1].data) % 32
        files[-1] = files[-1][: len(files[-1]) - min(lost, padding)]
    check_merge(lay_out(files), files, tensors)
