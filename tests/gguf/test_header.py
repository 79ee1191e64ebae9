import struct
import tracemalloc
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsollama.errors import DsollamaError, MalformedGgufError, NotGgufError, ShardError
from dsollama.gguf import encode as gg
from dsollama.gguf import header as gh
from dsollama.gguf.header import Header, NeedMoreBytesError, Room, parse_header
from dsollama.testing.tiny_model import tiny_model, write_gguf, write_shards

from conftest import ROOT, without_engine

HUGE = 2**60
KEY = gg.encode_string("k")
NAME = gg.encode_key_value("general.name", gg.STRING, "x")
TENSOR = gg.encode_tensor_info(b"t", (32,), 0, 0)
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00ff\nsize 9999999\n"


def parse(data: bytes) -> Header:
    return parse_header(data, len(data))


def counted(entries: int, tensors: int, rest: bytes = b"", version: int = 3) -> bytes:
    return gg.MAGIC + struct.pack("<IQQ", version, tensors, entries) + rest


def with_array(kind: int, count: int, rest: bytes = bytes(64)) -> bytes:
    return counted(1, 0, KEY + struct.pack("<IIQ", gg.ARRAY, kind, count) + rest)


def with_tensors(*infos: bytes, data: int = 4096, entries: tuple[bytes, ...] = ()) -> bytes:
    return gg.encode_header(entries, infos) + bytes(data)


def raw_tensor(name: bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return gg.encode_string(name) + shape + struct.pack("<IQ", kind, offset)


def aligned(value: int, kind: int = gg.UINT32) -> bytes:
    entry = gg.encode_key_value("general.alignment", kind, value)
    return with_tensors(TENSOR, data=8192, entries=(entry,))


def parse_growing(data: bytes) -> Header:
    """Give the parser exactly what it asks for, from nothing on."""
    have = 0
    for _ in range(len(data) + 1):
        try:
            return parse_header(data[:have], len(data))
        except NeedMoreBytesError as error:
            before, have = have, error.size
        assert before < have <= len(data)
    pytest.fail("the parser went on asking")


def outcome(data: bytes, *, growing: bool) -> Header | tuple[type, str]:
    try:
        return parse_growing(data) if growing else parse(data)
    except ShardError as error:
        return type(error), str(error)


def agrees_with_gguf_package(path: Path) -> Header:
    data = path.read_bytes()
    ours, theirs = parse(data), gguf.GGUFReader(path)
    fields = [field for name, field in theirs.fields.items() if not name.startswith("GGUF.")]
    assert [entry.key for entry in ours.key_values] == [field.name for field in fields]
    for entry, field in zip(ours.key_values, fields, strict=True):
        length = sum(int(part.nbytes) for part in field.parts)
        assert (entry.start, entry.end) == (field.offset, field.offset + length)
        assert entry.kind == field.types[0]
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        assert ours.get(entry.key) == (None if is_array else field.contents())
    assert [
        (t.name.decode(), list(t.dims), t.kind, ours.data_start + t.offset, t.size, t.elements)
        for t in ours.tensors
    ] == [
        (t.name, t.shape.tolist(), t.tensor_type, t.data_offset, t.n_bytes, t.n_elements)
        for t in theirs.tensors
    ]
    assert ours.alignment == theirs.alignment
    return ours


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_gguf(path, tiny_model("{{ messages }}", layers=2, expert_width=2))
    return path


def test_a_whole_model_reads_as_the_gguf_package_reads_it(model_file: Path) -> None:
    header = agrees_with_gguf_package(model_file)
    assert len(header.tensors) == 3 + 13 + 18
    assert header.get_str("tokenizer.chat_template") == "{{ messages }}"
    assert header.get_int("deepseek2.block_count") == 2
    assert header.get("deepseek2.expert_weights_norm") is True
    assert header.data_start + header.padded_data_size == model_file.stat().st_size


@pytest.mark.parametrize("first_empty", [False, True])
def test_every_shard_reads_as_the_gguf_package_reads_it(tmp_path: Path, first_empty: bool) -> None:
    model = tiny_model("x", layers=1, expert_width=1)
    paths = write_shards(tmp_path, "tiny", model, 4, first_empty=first_empty)
    headers = [agrees_with_gguf_package(path) for path in paths]
    keys = ("split.no", "split.count", "split.tensors.count")
    assert [[h.get_int(key) for key in keys] for h in headers] == [[n, 4, 16] for n in range(4)]
    assert [bool(header.tensors) for header in headers] == [not first_empty, True, True, True]
    assert sum(len(header.tensors) for header in headers) == 16


def test_values_of_another_type_are_not_given_as_numbers_or_text(model_file: Path) -> None:
    header = parse(model_file.read_bytes())
    assert header.get_int("general.name") is header.get_str("deepseek2.block_count") is None
    assert header.get_int("deepseek2.expert_weights_norm") is None
    assert header.get("tokenizer.ggml.tokens") is header.get("no.such.key") is None


def test_a_growing_buffer_ends_in_the_same_header(model_file: Path) -> None:
    data = model_file.read_bytes()
    whole = parse(data)
    assert parse_growing(data) == whole
    for have in range(0, whole.data_start, 1000):
        with pytest.raises(NeedMoreBytesError):
            parse_header(data[:have], len(data))
    assert parse_header(data[: whole.data_start], len(data)) == whole


@pytest.fixture
def vocabularies() -> list[Path]:
    """Small real GGUFs by others, from llama.cpp's source."""
    found = sorted((ROOT / "llama.cpp" / "vocabularies").glob("ggml-vocab-*.gguf"))
    if not found:
        without_engine("llama.cpp/vocabularies is not there: run `make engines`")
    return found


@pytest.mark.engines
def test_llama_cpps_vocabulary_files_are_read_to_their_last_byte(vocabularies: list[Path]) -> None:
    for path in vocabularies:
        header = parse(path.read_bytes())
        rest = path.stat().st_size - header.key_values[-1].end
        assert (header.tensors, header.data_start) == ((), path.stat().st_size)
        assert 0 <= rest < 32, path


@pytest.mark.engines
@pytest.mark.parametrize("name", ["deepseek-coder", "bert-bge"])
def test_llama_cpps_vocabulary_reads_as_the_gguf_package_reads_it(
    name: str, vocabularies: list[Path]
) -> None:
    header = agrees_with_gguf_package(vocabularies[0].with_name(f"ggml-vocab-{name}.gguf"))
    assert header.get_str("tokenizer.ggml.pre") == name


def test_version_2_is_read_like_version_3() -> None:
    data = bytearray(with_tensors(TENSOR, data=128, entries=(NAME,)))
    three = parse(bytes(data))
    data[4] = 2
    two = parse(bytes(data))
    assert (two.key_values, two.tensors) == (three.key_values, three.tensors)


def test_a_file_without_tensors_may_end_before_the_padding() -> None:
    data = counted(1, 0, NAME)
    assert len(data) % 32
    assert parse(data).data_start == len(data)
    assert parse(data + bytes(-len(data) % 32)).data_start % 32 == 0


def test_the_data_begins_aligned_and_may_end_before_its_padding() -> None:
    head = gg.encode_header((), [gg.encode_tensor_info(b"t", (3,), 0, 0)])
    header = parse(head + bytes(12))
    assert (header.data_size, header.padded_data_size) == (12, 32)
    header = parse(aligned(4096))
    assert (header.alignment, header.data_start) == (4096, 4096)


HOSTILE = {
    "claims": {
        "2^60 key-values": counted(HUGE, 0, bytes(100)),
        "2^60 tensors": counted(0, HUGE, bytes(100)),
        "more key-values than any model": counted(gh.MAX_ENTRIES + 1, 0, bytes(100)),
    },
    "a key of": {"2^60 bytes": counted(1, 0, struct.pack("<Q", HUGE) + bytes(64))},
    "past the end": {
        "magic alone": gg.MAGIC,
        "65536 key-values in a short file": counted(gh.MAX_ENTRIES, 0, NAME),
        "key by one byte": counted(1, 0, struct.pack("<Q", 9) + bytes(8)),
        "text": counted(1, 0, KEY + struct.pack("<IQ", gg.STRING, HUGE) + bytes(64)),
        "2^60 texts": with_array(gg.STRING, HUGE),
        "2^64-1 doubles": with_array(gg.FLOAT64, 2**64 - 1),
        "second text": with_array(gg.STRING, 2, gg.encode_string("a") + struct.pack("<Q", HUGE)),
        "alignment": aligned(2**31),
    },
    "unknown type": {
        "nested array": with_array(gg.ARRAY, 1, struct.pack("<IQ", gg.UINT8, 1) + b"x"),
        "array": with_array(13, 1),
        "value": counted(1, 0, KEY + struct.pack("<IQ", 13, 0)),
    },
    "empty or twice": {
        "empty key": counted(1, 0, gg.encode_key_value("", gg.UINT8, 1)),
        "duplicate key": counted(2, 0, NAME + NAME),
    },
    "not a power of two": {"0": aligned(0), "48": aligned(48)},
    "not a u32": {"u64": aligned(32, gg.UINT64), "text": aligned(32, gg.STRING)},
    "occurs twice": {"tensor": with_tensors(TENSOR, gg.encode_tensor_info(b"t", (32,), 0, 128))},
    "and not at": {
        "over the one before": with_tensors(TENSOR, gg.encode_tensor_info(b"u", (32,), 0, 96)),
        "after a gap": with_tensors(TENSOR, gg.encode_tensor_info(b"u", (32,), 0, 160)),
        "first one not at 0": with_tensors(gg.encode_tensor_info(b"t", (32,), 0, 32)),
        "offset of 2^60": with_tensors(TENSOR, gg.encode_tensor_info(b"u", (32,), 0, HUGE)),
    },
    "cut off": {
        "one byte": with_tensors(gg.encode_tensor_info(b"t", (1024,), 0, 0), data=4095),
        "2^60 elements": with_tensors(gg.encode_tensor_info(b"t", (HUGE,), 0, 0)),
    },
    "impossible shape": {
        "2^64 elements": with_tensors(raw_tensor(b"t", (2**32, 2**32, 1, 1))),
        "dimension of 2^64-1": with_tensors(raw_tensor(b"t", (2**64 - 1,))),
        # Negative to ggml, which refuses it whatever the other dimensions are.
        "dimension of 2^63 beside a 0": with_tensors(raw_tensor(b"t", (0, 2**63))),
    },
    "dimensions": {
        "five": with_tensors(raw_tensor(b"t", (1, 1, 1, 1, 1))),
        "2^32-1": counted(0, 1, gg.encode_string(b"t") + struct.pack("<I", 2**32 - 1)),
    },
    "too long": {"name of 64 bytes": with_tensors(raw_tensor(b"n" * 64, (32,)))},
    "does not know": {
        "removed tensor type": with_tensors(raw_tensor(b"t", (32,), 4)),
        "Q8_1, which no file stores": with_tensors(raw_tensor(b"t", (32,), 9)),
    },
    "part blocks": {"Q8_0 row of 48": with_tensors(raw_tensor(b"t", (48, 32), 8))},
    "versions 2 and 3 are supported": {
        "1": counted(0, 0, bytes(8), version=1),
        "4": counted(0, 0, bytes(8), version=4),
        "3, big-endian": gg.MAGIC + struct.pack(">IQQ", 3, 0, 0) + bytes(8),
    },
}


@pytest.mark.parametrize(
    ("said", "name"), [(said, name) for said, cases in HOSTILE.items() for name in cases]
)
def test_a_hostile_header_is_malformed_and_costs_no_memory(said: str, name: str) -> None:
    data = HOSTILE[said][name]
    tracemalloc.start()
    try:
        with pytest.raises(MalformedGgufError, match=said):
            parse(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**18
    assert outcome(data, growing=True) == outcome(data, growing=False)


def test_a_huge_file_does_not_make_huge_counts_believable() -> None:
    with pytest.raises(MalformedGgufError, match="claims"):
        parse_header(counted(0, HUGE), 2**63)
    with pytest.raises(MalformedGgufError, match="no real model"):
        parse_header(with_array(gg.STRING, HUGE), 2**64)
    with pytest.raises(MalformedGgufError, match="no real model"):
        parse_header(with_array(gg.UINT8, gh.MAX_HEADER_BYTES), 2**40)


def test_the_longest_name_and_the_most_dimensions_are_still_read() -> None:
    infos = (raw_tensor(b"n" * 63, (3, 1, 2, 1)), raw_tensor(b"q", (64, 2), 8, 32))
    first, second = parse(with_tensors(*infos)).tensors
    assert (first.name, first.dims, first.size) == (b"n" * 63, (3, 1, 2, 1), 24)
    assert (second.elements, second.size) == (128, 128 // 32 * 34)


def test_a_truncated_tail_is_malformed(model_file: Path) -> None:
    data = model_file.read_bytes()
    header = parse(data)
    size = header.data_start + header.data_size
    assert parse_header(header.raw, size) == header
    with pytest.raises(MalformedGgufError, match="cut off"):
        parse_header(header.raw, size - 1)
    with pytest.raises(MalformedGgufError, match="past the end"):
        parse(data[: header.data_start - 1])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (LFS_POINTER, "LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"<?xml version='1.0'?><Error/>", "web page"),
        (b"FUGG" + bytes(60), "FUGG"),
        (b"GGU", "GGU"),
        (b"", "empty"),
    ],
)
def test_another_file_is_named_for_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(NotGgufError, match=said):
        parse(data)
    assert outcome(data, growing=True) == outcome(data, growing=False)


ENTRIES = (NAME, gg.encode_key_array("a", gg.STRING, ["b", "", "c"]))
VALID = with_tensors(TENSOR, raw_tensor(b"q", (64, 2), 8, 128), data=288, entries=ENTRIES)
MUTATIONS = st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6)
ANY = st.binary(max_size=300)


def mutate(changes: list[tuple[int, int]], length: int) -> bytes:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    return bytes(data[:length])


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        ANY,
        ANY.map(lambda rest: gg.MAGIC + struct.pack("<I", 3) + rest),
        st.builds(counted, st.integers(0, 3), st.integers(0, 3), ANY),
        st.builds(mutate, MUTATIONS, st.just(len(VALID)) | st.integers(0, len(VALID))),
    )
)
def test_any_bytes_give_a_header_inside_the_file_or_an_error_of_ours(data: bytes) -> None:
    result = outcome(data, growing=False)
    assert outcome(data, growing=True) == result
    if isinstance(result, Header):
        assert data.startswith(result.raw)
        assert result.data_start + result.data_size <= len(data)
        ends = [tensor.offset + tensor.size for tensor in result.tensors]
        starts = [tensor.offset for tensor in result.tensors[1:]]
        assert all(end <= start for end, start in zip(ends, starts, strict=False))
    else:
        assert issubclass(result[0], DsollamaError)


@given(ANY, st.integers(0, 2**64))
def test_a_piece_of_any_file_asks_for_more_or_is_judged(data: bytes, file_size: int) -> None:
    needed = None
    try:
        parse_header(gg.MAGIC + data, file_size)
    except NeedMoreBytesError as error:
        needed = error.size
    except ShardError:
        return
    assert needed is None or len(data) + 4 < needed <= file_size


def test_headers_share_one_room() -> None:
    header = parse(gg.encode_header([], []))
    room = Room(size=2 * header.data_start, entries=1).after(header).after(header)
    assert room == Room(size=0, entries=1)
    with pytest.raises(MalformedGgufError, match="together are larger"):
        room.after(header)
    crowded = parse(gg.encode_header([gg.encode_key_value("a", gg.UINT8, 1)], []))
    with pytest.raises(MalformedGgufError, match="together are larger"):
        Room(entries=0).after(crowded)
