"""Writing GGUF headers: key-values, tensor infos and the padding after them.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

MAGIC = b"GGUF"
VERSION = 3
DEFAULT_ALIGNMENT = 32

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = (
    range(13)
)
SCALAR_FORMATS = {
    UINT8: "<B",
    INT8: "<b",
    UINT16: "<H",
    INT16: "<h",
    UINT32: "<I",
    INT32: "<i",
    FLOAT32: "<f",
    BOOL: "<?",
    UINT64: "<Q",
    INT64: "<q",
    FLOAT64: "<d",
}


def pad_length(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """Return how many bytes bring `size` to the next multiple of `alignment`."""
    return -size % alignment


def encode_string(text: str | bytes) -> bytes:
    """Return a GGUF string: its length as u64, then its bytes."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def encode_scalar(kind: int, value: float | str | bool) -> bytes:
    """Return a value of the GGUF type `kind`, without its type number."""
    if kind == STRING:
        return encode_string(str(value))
    return struct.pack(SCALAR_FORMATS[kind], value)


def encode_key_value(key: str, kind: int, value: float | str | bool) -> bytes:
    """Return one whole key-value entry."""
    return encode_string(key) + struct.pack("<I", kind) + encode_scalar(kind, value)


def encode_key_array(key: str, kind: int, values: Sequence[float | str | bool]) -> bytes:
    """Return one whole key-value entry whose value is an array of `kind`."""
    head = encode_string(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(encode_scalar(kind, value) for value in values)


def encode_tensor_info(name: bytes, dims: Sequence[int], kind: int, offset: int) -> bytes:
    """Return one tensor info; trailing dimensions of 1 are left out, as ggml's writer does."""
    kept = list(dims)
    while len(kept) > 1 and kept[-1] == 1:
        kept.pop()
    shape = struct.pack(f"<I{len(kept)}Q", len(kept), *kept)
    return encode_string(name) + shape + struct.pack("<IQ", kind, offset)


def encode_header(key_values: Sequence[bytes], tensor_infos: Iterable[bytes]) -> bytes:
    """Return a whole header, padded to where the tensor data begins.

    Args:
        key_values: encoded entries, in their order.
        tensor_infos: encoded infos, in their order.
    """
    infos = list(tensor_infos)
    head = MAGIC + struct.pack("<IQQ", VERSION, len(infos), len(key_values))
    body = b"".join((head, *key_values, *infos))
    return body + bytes(pad_length(len(body)))
