"""Reading a GGUF header from a buffer that may hold only the beginning of the file.

The same rules as ggml's own reader (ggml/src/gguf.cpp), so that what is accepted here is what
llama.cpp can load: versions 2 and 3, no duplicate keys or tensors, tensors one after another
without gaps. Every count and length is checked against the file's size before it is believed,
so hostile input costs no memory beyond the buffer itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from dsollama.errors import MalformedGgufError, NotGgufError
from dsollama.gguf.encode import (
    ARRAY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    SCALAR_FORMATS,
    STRING,
    UINT32,
    pad_length,
)
from dsollama.gguf.tensor_types import TENSOR_TYPES

MAX_HEADER_BYTES = 32 * 2**20
"""No real header comes near: DeepSeek's, with 129,280 tokens and their merges, has 10 MB."""

MAX_ENTRIES = 2**16
"""Most key-values or tensors of one file; DeepSeek's 671B models have some 60 and 1,100."""

MAX_NAME_BYTES = 64
"""ggml's GGML_MAX_NAME: a tensor name is shorter than this."""

MAX_KEY_BYTES = 2**16 - 1
"""Of the key of an entry, by the description of the format (docs/gguf.md of ggml)."""

MAX_DIMS = 4
MAX_FILE_BYTES = 2**63 - 1
_SUPPORTED_VERSIONS = (2, 3)
_SHOWN = 80
"""Characters of a key that an error shows."""

_SCALAR_SIZES = {kind: struct.calcsize(form) for kind, form in SCALAR_FORMATS.items()}


class NeedMoreBytesError(Exception):
    """The buffer ends inside the header; `size` bytes from the file's start are needed next."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes of the file are needed")
        self.size = size


@dataclass(frozen=True)
class KeyValue:
    """One entry: its key, its type and where the whole entry lies in the header's bytes."""

    key: str
    kind: int
    start: int
    value_start: int
    end: int


@dataclass(frozen=True)
class Tensor:
    """One tensor: its shape, ggml type, place in the data section and size, in bytes."""

    name: bytes
    dims: tuple[int, ...]
    kind: int
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """Number of the tensor's elements (its parameters)."""
        count = 1
        for dim in self.dims:
            count *= dim
        return count


@dataclass(frozen=True)
class Header:
    """A file's header.

    Attributes:
        raw: the file's bytes from 0 to where the tensor data begins.
        key_values: the entries in file order.
        tensors: the tensors in file order, which is the order of their data.
        alignment: what offsets are multiples of, in bytes.
    """

    raw: bytes = field(repr=False)
    key_values: tuple[KeyValue, ...]
    tensors: tuple[Tensor, ...]
    alignment: int = DEFAULT_ALIGNMENT

    @property
    def data_start(self) -> int:
        """Where the tensor data begins, in bytes from the file's start."""
        return len(self.raw)

    @property
    def data_size(self) -> int:
        """Bytes of the tensor data without the padding after the last tensor."""
        return self.tensors[-1].offset + self.tensors[-1].size if self.tensors else 0

    @property
    def padded_data_size(self) -> int:
        """Bytes of the tensor data with the padding after the last tensor."""
        return self.data_size + pad_length(self.data_size, self.alignment)

    def get(self, key: str) -> float | str | bool | None:
        """Return the scalar or string under `key`; None when absent or an array."""
        for entry in self.key_values:
            if entry.key == key:
                return self._decode(entry)
        return None

    def get_int(self, key: str) -> int | None:
        """Return the integer under `key`; None when absent or of another type."""
        value = self.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def get_str(self, key: str) -> str | None:
        """Return the string under `key`; None when absent or of another type."""
        value = self.get(key)
        return value if isinstance(value, str) else None

    def _decode(self, entry: KeyValue) -> float | str | bool | None:
        if entry.kind == STRING:
            return self.raw[entry.value_start + 8 : entry.end].decode("utf-8", "replace")
        form = SCALAR_FORMATS.get(entry.kind)
        if form is None:
            return None
        value: float | bool = struct.unpack_from(form, self.raw, entry.value_start)[0]
        return value


@dataclass(frozen=True)
class Room:
    """What the headers of one model may still take together: bytes, and entries of any kind."""

    size: int = MAX_HEADER_BYTES
    entries: int = MAX_ENTRIES

    def after(self, header: Header) -> Room:
        """Return what is left.

        Raises:
            MalformedGgufError: the header does not fit in.
        """
        room = Room(
            self.size - header.data_start,
            self.entries - len(header.key_values) - len(header.tensors),
        )
        if room.size < 0 or room.entries < 0:
            raise MalformedGgufError(
                "The headers of the shards together are larger than any real model's."
            )
        return room


def parse_header(buffer: bytes, file_size: int) -> Header:
    """Parse the header at the beginning of `buffer`.

    Args:
        buffer: the first bytes of the file, as many as are at hand.
        file_size: bytes of the whole file.

    Raises:
        NeedMoreBytesError: the buffer ends inside the header.
        NotGgufError: this is something else, such as a Git LFS pointer.
        MalformedGgufError: the header cannot be trusted.
    """
    return _Parser(buffer, file_size).parse()


def read_header(read: Callable[[int, int], bytes], file_size: int, first: int) -> Header:
    """Read and parse a header of which nobody knows how long it is.

    Args:
        read: returns bytes `start` to `end` (exclusive) of the file; asked for each byte once.
        file_size: bytes of the whole file.
        first: bytes to read at first; what follows at least doubles it.

    Raises:
        NotGgufError: this is something else.
        MalformedGgufError: the header cannot be trusted.
    """
    buffer, size = b"", first
    while True:
        size = min(size, file_size)
        buffer += read(len(buffer), size) if size else b""
        try:
            return parse_header(buffer, file_size)
        except NeedMoreBytesError as need:
            if len(buffer) < size:
                raise MalformedGgufError("The file ends before its header does.") from need
            size = max(need.size, 2 * size)


class _Parser:
    """A cursor over the buffer; every read is bounded by the buffer and by the file."""

    def __init__(self, buffer: bytes, file_size: int) -> None:
        self.buffer = buffer
        self.limit = min(file_size, MAX_HEADER_BYTES)
        self.file_size = file_size
        self.at = 0

    def parse(self) -> Header:
        """Parse everything up to where the tensor data begins."""
        self._check_magic()
        version, tensor_count, entry_count = self._unpack("<IQQ")
        if version not in _SUPPORTED_VERSIONS:
            raise MalformedGgufError(
                f"The file is GGUF version {version}; versions 2 and 3 are supported."
            )
        if entry_count > MAX_ENTRIES or tensor_count > MAX_ENTRIES:
            raise MalformedGgufError(
                f"The header claims {entry_count} key-values and {tensor_count} tensors."
            )
        entries = self._key_values(entry_count)
        alignment = self._alignment(entries)
        tensors = self._tensors(tensor_count, alignment)
        end = self.at + pad_length(self.at, alignment)
        if not tensors:  # then ggml does not look for the padding, and it may be missing
            end = min(end, self.file_size)
        self._need(end)
        header = Header(self.buffer[:end], entries, tensors, alignment)
        if header.data_start + header.data_size > self.file_size:
            raise MalformedGgufError(
                f"The file has {self.file_size} bytes and its tensors need "
                f"{header.data_start + header.data_size}: it is cut off."
            )
        return header

    def _check_magic(self) -> None:
        if self.file_size == 0:
            raise NotGgufError("The file is empty.")
        self._need(min(4, self.limit))
        magic = self.buffer[:4]
        if magic == MAGIC:
            self.at = len(MAGIC)
            return
        self._need(min(64, self.limit))
        start = self.buffer[:64].lstrip().lower()
        if start.startswith(b"version https://git-lfs"):
            raise NotGgufError(
                "The file is a Git LFS pointer, not the model.",
                "It was cloned without its large files; the Hub's own download has the real ones.",
            )
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            raise NotGgufError(
                "The file is a web page, not a GGUF.",
                "A proxy or a login page may stand between this machine and the Hub.",
            )
        raise NotGgufError(f"The file does not begin with GGUF but with {magic!r}.")

    def _need(self, size: int) -> None:
        if size > self.limit:
            if size > self.file_size:
                raise MalformedGgufError("The header reaches past the end of the file.")
            raise MalformedGgufError(
                f"The header is larger than {MAX_HEADER_BYTES} bytes, which no real model's is."
            )
        if size > len(self.buffer):
            raise NeedMoreBytesError(size)

    def _unpack(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        self._need(self.at + size)
        values = struct.unpack_from(form, self.buffer, self.at)
        self.at += size
        return values

    def _skip(self, size: int) -> None:
        self._need(self.at + size)
        self.at += size

    def _string(self) -> bytes:
        (length,) = self._unpack("<Q")
        start = self.at
        self._skip(length)
        return self.buffer[start : self.at]

    def _key_values(self, count: int) -> tuple[KeyValue, ...]:
        entries: list[KeyValue] = []
        seen: set[str] = set()
        for _ in range(count):
            start = self.at
            key = self._key()
            if not key or key in seen:
                raise MalformedGgufError(f"The header has the key {key[:_SHOWN]!r} empty or twice.")
            seen.add(key)
            (kind,) = self._unpack("<I")
            value_start = self.at
            self._skip_value(key, kind)
            entries.append(KeyValue(key, kind, start, value_start, self.at))
        return tuple(entries)

    def _key(self) -> str:
        (length,) = self._unpack("<Q")
        if length > MAX_KEY_BYTES:
            raise MalformedGgufError(f"The header has a key of {length} bytes.")
        start = self.at
        self._skip(length)
        return self.buffer[start : self.at].decode("utf-8", "backslashreplace")

    def _skip_value(self, key: str, kind: int) -> None:
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            kind, count = self._unpack("<IQ")
            if kind == STRING:
                self._skip_strings(count)
            elif kind in _SCALAR_SIZES:
                self._skip(count * _SCALAR_SIZES[kind])
            else:
                raise MalformedGgufError(
                    f"The key {key[:_SHOWN]!r} is an array of unknown type {kind}."
                )
        elif kind in _SCALAR_SIZES:
            self._skip(_SCALAR_SIZES[kind])
        else:
            raise MalformedGgufError(f"The key {key[:_SHOWN]!r} has the unknown type {kind}.")

    def _skip_strings(self, count: int) -> None:
        self._need(self.at + 8 * count)  # each has at least its length
        # The vocabulary's loop of some 256,000 steps: locals, not method calls.
        unpack, buffer = struct.Struct("<Q").unpack_from, self.buffer
        at, end = self.at, len(buffer)
        for _ in range(count):
            if at + 8 > end:
                self._need(at + 8)
            at += 8 + unpack(buffer, at)[0]
            if at > end:
                self._need(at)
        self.at = at

    def _alignment(self, entries: tuple[KeyValue, ...]) -> int:
        for entry in entries:
            if entry.key == "general.alignment":
                if entry.kind != UINT32:
                    raise MalformedGgufError("The key general.alignment is not a u32.")
                value: int = struct.unpack_from("<I", self.buffer, entry.value_start)[0]
                if value == 0 or value & (value - 1):
                    raise MalformedGgufError(f"The alignment {value} is not a power of two.")
                return value
        return DEFAULT_ALIGNMENT

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        tensors: list[Tensor] = []
        seen: set[bytes] = set()
        expected = 0
        for _ in range(count):
            tensor = self._tensor()
            shown = tensor.name.decode("utf-8", "backslashreplace")
            if tensor.name in seen:
                raise MalformedGgufError(f"The tensor {shown!r} occurs twice.")
            if tensor.offset != expected:
                raise MalformedGgufError(
                    f"The tensor {shown!r} lies at {tensor.offset} and not at {expected}."
                )
            seen.add(tensor.name)
            tensors.append(tensor)
            expected += tensor.size + pad_length(tensor.size, alignment)
        return tuple(tensors)

    def _tensor(self) -> Tensor:
        name = self._string()
        shown = name[:MAX_NAME_BYTES].decode("utf-8", "backslashreplace")
        if len(name) >= MAX_NAME_BYTES:
            raise MalformedGgufError(f"The tensor name {shown!r} is too long.")
        (rank,) = self._unpack("<I")
        if rank > MAX_DIMS:
            raise MalformedGgufError(f"The tensor {shown!r} has {rank} dimensions.")
        dims = self._unpack(f"<{rank}Q") or (1,)
        kind, offset = self._unpack("<IQ")
        return Tensor(name, dims, kind, offset, _tensor_bytes(shown, dims, kind))


def _tensor_bytes(name: str, dims: tuple[int, ...], kind: int) -> int:
    known = TENSOR_TYPES.get(kind)
    if known is None:
        raise MalformedGgufError(
            f"The tensor {name!r} has the type {kind}, which this dsollama does not know.",
            "A newer dsollama may, or `--merger llama-gguf-split` with a current llama.cpp.",
        )
    if dims[0] % known.block:
        raise MalformedGgufError(f"The tensor {name!r} has rows of part blocks of {known.name}.")
    elements = 1
    for dim in dims:
        elements *= dim
        if max(dim, elements) > MAX_FILE_BYTES:
            raise MalformedGgufError(f"The tensor {name!r} has an impossible shape {dims}.")
    return elements // known.block * known.size
