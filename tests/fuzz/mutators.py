"""Inputs that know their format: whole GGUF headers, journals and JSON, with something wrong."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from dsollama.gguf import encode as gg
from fuzz.targets import DIGESTS, MAX_FILES, SEPARATOR

Mutate = Callable[[bytes, int], bytes]
"""The fuzzer's own mutation of bytes, to at most so many."""

_NUMBERS = (0, 1, 2, 3, 31, 32, 33, 64, 255, 2**16, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1)
_KEYS = (
    "split.no", "split.count", "split.tensors.count", "general.alignment", "general.name",
    "general.architecture", "tokenizer.ggml.tokens", "", "x",
)  # fmt: skip
_NAMES = (b"token_embd.weight", b"output.weight", b"a", b"b", b"c", b"", b"n" * 63, b"n" * 64)
_I8 = 24
_PLAIN = (0, 1, 24, 30)
_TYPES = (0, 1, 2, 8, 10, 12, 24, 28, 30, 39, 42, 99)


def mutate_gguf(data: bytes, size: int, seed: int, mutate: Mutate) -> bytes:
    """Half of the time bytes change, else one file of the input is made anew."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return mutate(data, size)
    parts = data.split(SEPARATOR)
    count = chance.choice((1, 1, 2, 3, MAX_FILES))
    if chance.random() < 0.5:
        parts = _shards(chance, count)
    else:
        parts[chance.randrange(len(parts))] = _file(chance, [], chance.randrange(4))
    made = SEPARATOR.join(parts)
    return made if len(made) <= size else mutate(data, size)


def mutate_json(data: bytes, size: int, seed: int, mutate: Mutate) -> bytes:
    """Change one value of a JSON text, or bytes where it is none or by chance."""
    chance = random.Random(seed)
    parts = data.split(SEPARATOR)
    index = chance.randrange(len(parts))
    try:
        value = json.loads(parts[index])
    except (ValueError, RecursionError):
        return mutate(data, size)
    if chance.random() < 0.4:
        return mutate(data, size)
    parts[index] = json.dumps(_changed(chance, value)).encode()
    made = SEPARATOR.join(parts)
    return made if len(made) <= size else mutate(data, size)


def _shards(chance: random.Random, count: int) -> list[bytes]:
    """A set that is right, but for chance: so that the merge is reached."""
    names = [b"t%d" % number for number in range(2 * count)]
    groups = [chance.randrange(3) for _ in range(count)]
    total = sum(groups)
    files = []
    for number, group in enumerate(groups):
        split = [
            gg.encode_key_value("split.no", gg.UINT16, number),
            gg.encode_key_value("split.count", gg.UINT16, count),
            gg.encode_key_value("split.tensors.count", gg.INT32, total),
        ]
        files.append(_file(chance, split, group, [names.pop() for _ in range(group)], wild=0.02))
    return files


def _file(
    chance: random.Random,
    first: list[bytes],
    count: int,
    names: list[bytes] | None = None,
    wild: float = 0.3,
) -> bytes:
    """A file that is right, but for `wild` chances at every step."""

    def goes_wild() -> bool:
        return chance.random() < wild

    entries = [*first, *(_entry(chance) for _ in range(chance.randrange(3)) if goes_wild())]
    infos, offset = [], 0
    for index in range(count):
        name = names[index] if names else chance.choice(_NAMES)
        kind, dims = chance.choice(_PLAIN), [chance.choice((1, 3, 32, 256, 2**20))]
        if chance.random() < 0.1:
            kind, dims = _I8, [2**63 - 32]  # as large as can be
        if goes_wild():
            kind = chance.choice(_TYPES)
            dims = [chance.choice((0, 1, 3, 256, *_NUMBERS)) for _ in range(chance.randrange(1, 5))]
        infos.append(gg.encode_tensor_info(name, dims, kind, offset))
        offset = (offset + _size(dims, kind)) % 2**64
    body = gg.encode_header(entries, infos)
    if goes_wild():
        at = chance.randrange(len(body))
        body = body[:at] + struct.pack("<Q", chance.choice(_NUMBERS)) + body[at + 8 :]
    claimed = len(body) + offset
    if goes_wild():
        claimed = chance.choice((len(body), claimed + 1, 2**64 - 1, chance.choice(_NUMBERS)))
    return struct.pack("<Q", claimed % 2**64) + body


def _size(dims: list[int], kind: int) -> int:
    from dsollama.gguf.tensor_types import TENSOR_TYPES

    known = TENSOR_TYPES.get(kind)
    if known is None:
        return 0
    elements = 1
    for dim in dims:
        elements *= dim
    size = elements // known.block * known.size
    return size + gg.pad_length(size)


def _entry(chance: random.Random) -> bytes:
    key = chance.choice(_KEYS)
    kind = chance.randrange(14)
    if kind == gg.ARRAY:
        return gg.encode_key_array(key, gg.STRING, ["a", "bc"][: chance.randrange(3)])
    if kind == gg.STRING:
        return gg.encode_key_value(key, kind, chance.choice(("", "x", "deepseek2")))
    if kind in gg.SCALAR_FORMATS:
        return gg.encode_key_value(key, kind, chance.choice((0, 1, 2, 32, 64)))
    return gg.encode_string(key) + struct.pack("<I", kind)


def _changed(chance: random.Random, value: Any) -> Any:
    """Return the value with one thing in it changed, taken away or added."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(sorted(value))
        changed = dict(value)
        action = chance.randrange(6)
        if action == 0:
            del changed[key]
        elif action == 1:
            changed[_text(chance)] = changed[key]
        else:
            changed[key] = _changed(chance, value[key])
        return changed
    if isinstance(value, list) and value and chance.random() < 0.8:
        changed_list = list(value)
        at = chance.randrange(len(value))
        changed_list[at : at + 1] = [_changed(chance, value[at])] * chance.randrange(3)
        return changed_list
    if isinstance(value, str) and chance.random() < 0.5:
        other = chance.choice(("\n", "\0", "\x1b", " ", "/", "..", "0", "é", value))
        return chance.choice((value + other, other + value, value[:-1], value.upper()))
    return _value(chance)


def _value(chance: random.Random) -> Any:
    return chance.choice(
        (
            None, True, False, 0, -1, 1, 100, 2**40, 2**63, 2**64, 1.5, float("inf"), float("nan"),
            1e308, 10**300, [], {}, [1, "a"], {"a": 1}, _text(chance), _text(chance),
        )
    )  # fmt: skip


def _text(chance: random.Random) -> str:
    return chance.choice(
        (
            "", "0", "1", "4", "01", "９", "²", "-1", "9" * 30, "a", "\n", "\0", "\x1b[2J",
            "\ud800", "stop", 'a"""b', '"', "../../x", "sha256:../../x", "0" * 64, "0" * 64 + "\n",
            "f" * 40,
            *DIGESTS, "application/vnd.ollama.image.params", "application/vnd.ollama.image.model",
            "application/vnd.ollama.image.template", "application/vnd.ollama.image.system",
        )
    )  # fmt: skip


MUTATORS: dict[str, Callable[[bytes, int, int, Mutate], bytes]] = {
    "gguf": mutate_gguf,
    "journal": mutate_json,
    "ledger": mutate_json,
    "manifest": mutate_json,
}
