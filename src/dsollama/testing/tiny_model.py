"""A tiny real model of DeepSeek's architecture whose answers are known.

It is a bigram machine: the attention output and all down projections are zero, the embedding is
one-hot and the output matrix is a permutation, so the next token is a function of the last one.
`<think>` leads through a fixed thought to `</think>`, `</think>` through a fixed answer to the
end of the sentence. Greedy or sampled, on a real engine, the text is known; and with padded
experts the file is as large as a test needs.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dsollama.gguf import encode as gg
from dsollama.gguf.shards import shard_file_name

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
SPECIAL = (
    BOS, EOS, PAD, USER, ASSISTANT, THINK, END_THINK,
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
    "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",
)  # fmt: skip
THOUGHT = ("The", " person", " greets", " me", ";", " I", " greet", " back", ".")
ANSWER = (
    "Hello",
    " from",
    " a",
    " tiny",
    " DeepSeek",
    ",",
    " merged",
    " out",
    " of",
    " shards",
    "!",
)
THOUGHT_TEXT, ANSWER_TEXT = "".join(THOUGHT), "".join(ANSWER)

WIDTH = 384
"""Embedding length; at least the number of tokens, because embeddings are one-hot."""

_F16, _F32 = 1, 0
_HEADS, _NOPE, _ROPE, _KV_RANK, _Q_RANK, _V_DIM = 2, 128, 64, 512, 64, 128
_EXPERTS = 8
_CHUNK = 2**20
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE_COUNT = 1, 3, 4, 256
_LOGIT_SCALE = 2.0

Data = Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class TinyTensor:
    """A tensor to be written: its shape, ggml type and a source of its bytes."""

    name: str
    dims: tuple[int, ...]
    kind: int
    data: Data

    @property
    def size(self) -> int:
        """Bytes."""
        count = 2 if self.kind == _F16 else 4
        for dim in self.dims:
            count *= dim
        return count


@dataclass(frozen=True)
class TinyModel:
    """A model to be written: encoded key-values and tensors, in order."""

    key_values: tuple[bytes, ...]
    tensors: tuple[TinyTensor, ...]


Chains = tuple[tuple[str | bytes, ...], ...]
"""Which token follows which: each chain is texts (or raw bytes) in their order."""

TALK: Chains = (
    (THINK, *THOUGHT, END_THINK),
    (END_THINK, *ANSWER, EOS),
    (ASSISTANT, ANSWER[0]),
    ("<｜tool▁output▁end｜>", ANSWER[0]),
    ("<｜tool▁outputs▁end｜>", ANSWER[0]),
)
"""What the tiny model says unless it is told otherwise."""


def vocabulary(chains: Chains = TALK) -> list[tuple[str, int]]:
    """Return (text as GGUF stores it, token type) of every token: bytes, marks, words."""
    bytes_ = [(letter, _NORMAL) for letter in _byte_letters().values()]
    marks = [(mark, _USER_DEFINED if mark in {THINK, END_THINK} else _CONTROL) for mark in SPECIAL]
    words = dict.fromkeys(_as_letters(word) for chain in chains for word in chain)
    known = {name for name, _ in (*bytes_, *marks)}
    return [*bytes_, *marks, *((word, _NORMAL) for word in words if word not in known)]


def tiny_model(
    chat_template: str, *, layers: int = 3, expert_width: int = 32, chains: Chains = TALK
) -> TinyModel:
    """Return a model with `chat_template` as its own Jinja.

    Args:
        chat_template: text of tokenizer.chat_template.
        layers: transformer layers; the first is dense, the others have 8 experts.
        expert_width: expert feed-forward length; a unit more makes every layer with experts
            3 * 384 * 9 * 2 bytes larger: 8 and the shared one.
        chains: what follows what; the first successor of a token counts.
    """
    tokens = vocabulary(chains)
    width = WIDTH
    tensors = [
        TinyTensor("token_embd.weight", (width, len(tokens)), _F32, _one_hot(len(tokens))),
        _ones("output_norm.weight", width),
        TinyTensor("output.weight", (width, len(tokens)), _F32, _permutation(tokens, chains)),
    ]
    for number in range(layers):
        tensors += _layer(number, width, expert_width)
    return TinyModel(
        tuple(_key_values(tokens, chat_template, layers, expert_width)), tuple(tensors)
    )


def write_gguf(path: Path, model: TinyModel) -> None:
    """Write the model as one file that is not split."""
    _write(path, model.key_values, model.tensors)


def write_shards(
    folder: Path, stem: str, model: TinyModel, count: int, *, first_empty: bool = False
) -> list[Path]:
    """Write the model as `count` shards, split as llama-gguf-split does, and return their paths.

    Args:
        folder: where to; made if absent.
        stem: name without shard number.
        model: what to write.
        count: number of shards; at most one per tensor.
        first_empty: the first shard has no tensors (`--no-tensor-first-split`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _even_groups(model.tensors, count - first_empty)
    if first_empty:
        groups.insert(0, ())
    paths = []
    for index, group in enumerate(groups):
        split = (
            gg.encode_key_value("split.no", gg.UINT16, index),
            gg.encode_key_value("split.count", gg.UINT16, count),
            gg.encode_key_value("split.tensors.count", gg.INT32, len(model.tensors)),
        )
        path = folder / shard_file_name(stem, index + 1, count)
        _write(path, (*(model.key_values if index == 0 else ()), *split), group)
        paths.append(path)
    return paths


def _even_groups(tensors: Sequence[TinyTensor], count: int) -> list[tuple[TinyTensor, ...]]:
    """Cut the tensors into `count` runs of about the same size, none empty."""
    total = sum(tensor.size for tensor in tensors)
    groups: list[list[TinyTensor]] = [[]]
    done = 0
    for index, tensor in enumerate(tensors):
        full = done >= total * len(groups) / count
        must = len(tensors) - index == count - len(groups)
        if groups[-1] and len(groups) < count and (full or must):
            groups.append([])
        groups[-1].append(tensor)
        done += tensor.size
    return [tuple(group) for group in groups]


def _write(path: Path, key_values: Sequence[bytes], tensors: Sequence[TinyTensor]) -> None:
    infos, offset = [], 0
    for tensor in tensors:
        infos.append(gg.encode_tensor_info(tensor.name.encode(), tensor.dims, tensor.kind, offset))
        offset += tensor.size + gg.pad_length(tensor.size)
    with path.open("wb") as out:
        out.write(gg.encode_header(key_values, infos))
        for tensor in tensors:
            for chunk in tensor.data():
                out.write(chunk)
            out.write(bytes(gg.pad_length(tensor.size)))


def _layer(number: int, width: int, expert_width: int) -> Iterator[TinyTensor]:
    prefix = f"blk.{number}."
    yield _ones(prefix + "attn_norm.weight", width)
    yield _noise(prefix + "attn_q_a.weight", (width, _Q_RANK), _F32)
    yield _ones(prefix + "attn_q_a_norm.weight", _Q_RANK)
    yield _noise(prefix + "attn_q_b.weight", (_Q_RANK, _HEADS * (_NOPE + _ROPE)), _F32)
    yield _noise(prefix + "attn_kv_a_mqa.weight", (width, _KV_RANK + _ROPE), _F32)
    yield _ones(prefix + "attn_kv_a_norm.weight", _KV_RANK)
    yield _noise(prefix + "attn_k_b.weight", (_NOPE, _KV_RANK, _HEADS), _F32)
    yield _noise(prefix + "attn_v_b.weight", (_KV_RANK, _V_DIM, _HEADS), _F32)
    yield _zeros(prefix + "attn_output.weight", (_HEADS * _V_DIM, width), _F32)
    yield _ones(prefix + "ffn_norm.weight", width)
    if number == 0:
        yield _noise(prefix + "ffn_gate.weight", (width, width), _F32)
        yield _noise(prefix + "ffn_up.weight", (width, width), _F32)
        yield _zeros(prefix + "ffn_down.weight", (width, width), _F32)
        return
    yield _noise(prefix + "ffn_gate_inp.weight", (width, _EXPERTS), _F32)
    yield _noise(prefix + "exp_probs_b.bias", (_EXPERTS,), _F32)
    yield _noise(prefix + "ffn_gate_exps.weight", (width, expert_width, _EXPERTS), _F16)
    yield _noise(prefix + "ffn_up_exps.weight", (width, expert_width, _EXPERTS), _F16)
    yield _zeros(prefix + "ffn_down_exps.weight", (expert_width, width, _EXPERTS), _F16)
    yield _noise(prefix + "ffn_gate_shexp.weight", (width, expert_width), _F16)
    yield _noise(prefix + "ffn_up_shexp.weight", (width, expert_width), _F16)
    yield _zeros(prefix + "ffn_down_shexp.weight", (expert_width, width), _F16)


def _key_values(
    tokens: Sequence[tuple[str, int]], chat_template: str, layers: int, expert_width: int
) -> Iterator[bytes]:
    text, number, real, flag = gg.STRING, gg.UINT32, gg.FLOAT32, gg.BOOL
    arch = "deepseek2."
    entries: list[tuple[str, int, float | str | bool]] = [
        ("general.architecture", text, "deepseek2"),
        ("general.type", text, "model"),
        ("general.name", text, "Tiny DeepSeek of dsollama"),
        ("general.quantized_by", text, "dsollama"),
        ("general.license", text, "apache-2.0"),
        (arch + "block_count", number, layers),
        (arch + "context_length", number, 163840),
        (arch + "embedding_length", number, WIDTH),
        (arch + "feed_forward_length", number, WIDTH),
        (arch + "attention.head_count", number, _HEADS),
        (arch + "attention.head_count_kv", number, 1),
        (arch + "attention.layer_norm_rms_epsilon", real, 1e-6),
        (arch + "attention.q_lora_rank", number, _Q_RANK),
        (arch + "attention.kv_lora_rank", number, _KV_RANK),
        (arch + "attention.key_length", number, _KV_RANK + _ROPE),
        (arch + "attention.value_length", number, _KV_RANK),
        (arch + "attention.key_length_mla", number, _NOPE + _ROPE),
        (arch + "attention.value_length_mla", number, _V_DIM),
        (arch + "vocab_size", number, len(tokens)),
        (arch + "leading_dense_block_count", number, 1),
        (arch + "expert_count", number, _EXPERTS),
        (arch + "expert_used_count", number, 2),
        (arch + "expert_shared_count", number, 1),
        (arch + "expert_group_count", number, 4),
        (arch + "expert_group_used_count", number, 2),
        (arch + "expert_feed_forward_length", number, expert_width),
        (arch + "expert_gating_func", number, 2),
        (arch + "expert_weights_norm", flag, True),
        (arch + "expert_weights_scale", real, 2.5),
        (arch + "rope.dimension_count", number, _ROPE),
        (arch + "rope.freq_base", real, 10000.0),
        (arch + "rope.scaling.type", text, "yarn"),
        (arch + "rope.scaling.factor", real, 40.0),
        (arch + "rope.scaling.original_context_length", number, 4096),
        (arch + "rope.scaling.yarn_log_multiplier", real, 0.1),
        ("general.file_type", number, 10),
        ("general.quantization_version", number, 2),
        ("tokenizer.ggml.model", text, "gpt2"),
        ("tokenizer.ggml.pre", text, "deepseek-v3"),
    ]
    names = [name for name, _ in tokens]
    for key, kind, value in entries:
        yield gg.encode_key_value(key, kind, value)
    yield gg.encode_key_array("tokenizer.ggml.tokens", gg.STRING, names)
    yield gg.encode_key_array("tokenizer.ggml.token_type", gg.INT32, [kind for _, kind in tokens])
    yield gg.encode_key_array("tokenizer.ggml.merges", gg.STRING, ["Ġ Ġ"])
    for key, mark in (("bos", BOS), ("eos", EOS), ("padding", PAD)):
        yield gg.encode_key_value(f"tokenizer.ggml.{key}_token_id", number, names.index(mark))
    yield gg.encode_key_value("tokenizer.ggml.add_bos_token", flag, value=True)
    yield gg.encode_key_value("tokenizer.ggml.add_eos_token", flag, value=False)
    yield gg.encode_key_value("tokenizer.chat_template", text, chat_template)


def _successors(names: Sequence[str], chains: Chains) -> Mapping[int, int]:
    """Return which token follows which; what is not said ends the sentence."""
    number = {name: index for index, name in enumerate(names)}
    follows = dict.fromkeys(range(len(names)), number[EOS])
    for chain in reversed(chains):
        for here, there in pairwise(map(_as_letters, chain)):
            follows[number[here]] = number[there]
    return follows


def _permutation(tokens: Sequence[tuple[str, int]], chains: Chains) -> Data:
    def data() -> Iterator[bytes]:
        matrix = array("f", bytes(4 * WIDTH * len(tokens)))
        for here, there in _successors([name for name, _ in tokens], chains).items():
            matrix[there * WIDTH + here] = _LOGIT_SCALE
        yield matrix.tobytes()

    return data


def _one_hot(count: int) -> Data:
    def data() -> Iterator[bytes]:
        matrix = array("f", bytes(4 * WIDTH * count))
        for token in range(count):
            matrix[token * WIDTH + token] = 1.0
        yield matrix.tobytes()

    return data


def _ones(name: str, size: int) -> TinyTensor:
    return TinyTensor(name, (size,), _F32, lambda: iter([struct.pack("<f", 1.0) * size]))


def _zeros(name: str, dims: tuple[int, ...], kind: int) -> TinyTensor:
    return _filled(name, dims, kind, lambda _number, length: bytes(length))


def _noise(name: str, dims: tuple[int, ...], kind: int) -> TinyTensor:
    """Random positive numbers below 2, never infinite: the sign and top exponent bits are 0."""
    mask = bytes((0xFF, 0x3F)) if kind == _F16 else bytes((0xFF, 0xFF, 0xFF, 0x3F))

    def chunk(number: int, length: int) -> bytes:
        if number == 0 or length < _CHUNK:
            whole.append(_masked(random.Random(name).randbytes(length), mask))  # noqa: S311
        # Each chunk begins with its number, so that no two of a tensor are alike.
        return (struct.pack("<I", number & 0x3FFF3FFF) + whole[-1][4:length])[:length]

    whole: list[bytes] = []
    return _filled(name, dims, kind, chunk)


def _filled(
    name: str, dims: tuple[int, ...], kind: int, chunk: Callable[[int, int], bytes]
) -> TinyTensor:
    def data() -> Iterator[bytes]:
        left, number = tensor.size, 0
        while left:
            piece = chunk(number, min(left, _CHUNK))
            yield piece
            left -= len(piece)
            number += 1

    tensor = TinyTensor(name, dims, kind, data)
    return tensor


def _masked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    pattern = (mask * (size // len(mask) + 1))[:size]
    return (int.from_bytes(data, "little") & int.from_bytes(pattern, "little")).to_bytes(
        size, "little"
    )


def _byte_letters() -> dict[int, str]:
    """GPT-2's way to show every byte as a printable letter, which GGUF's gpt2 tokens use."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(_BYTE_COUNT) if byte not in letters]
    letters |= {byte: chr(_BYTE_COUNT + index) for index, byte in enumerate(others)}
    return dict(sorted(letters.items()))


def _as_letters(text: str | bytes) -> str:
    if isinstance(text, str) and text in SPECIAL:
        return text
    letters = _byte_letters()
    return "".join(letters[byte] for byte in (text.encode() if isinstance(text, str) else text))
