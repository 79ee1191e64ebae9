"""Which files of a listing belong together: one shard set, or one single file, per entry.

llama.cpp names shards `PREFIX-00001-of-00006.gguf`, counting from 1 (llama_split_path).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dsollama.errors import MissingShardError

_SHARD_NAME = re.compile(
    r"(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL
)
_NOT_MODELS = ("mmproj", "imatrix")


@dataclass(frozen=True)
class ShardSet:
    """Files that make one GGUF when merged.

    Attributes:
        prefix: path in the repository without shard number and suffix.
        paths: the files in order; one for a model that is not split.
        count: how many files there must be.
        split: whether the names say that this is a split model.
    """

    prefix: str
    paths: tuple[str, ...]
    count: int
    split: bool

    @property
    def stem(self) -> str:
        """The prefix without its folders."""
        return self.prefix.rsplit("/", 1)[-1]

    def require_complete(self) -> None:
        """Raise MissingShardError unless every shard is there once."""
        if not self.split:
            return
        present = {path[len(self.prefix) + 1 :][:5] for path in self.paths}
        missing = [n for n in range(1, self.count + 1) if f"{n:05d}" not in present]
        if missing or len(self.paths) != self.count:
            named = ", ".join(map(str, missing[:5])) or "none"
            raise MissingShardError(
                f"The set {self.stem!r} says it has {self.count} shards and the repository "
                f"holds {len(self.paths)} (missing: {named}).",
                "The upload may be under way: try again later, or another --revision.",
            )


def shard_file_name(stem: str, number: int, count: int) -> str:
    """Return the name that llama-gguf-split expects of shard `number`, counted from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def find_shard_sets(paths: Iterable[str]) -> list[ShardSet]:
    """Group the GGUF files of a listing; projector and imatrix files are left out."""
    split: dict[tuple[str, int], list[str]] = {}
    sets: list[ShardSet] = []
    for path in sorted(paths):
        name = path.rsplit("/", 1)[-1]
        if not name.lower().endswith(".gguf") or name.lower().startswith(_NOT_MODELS):
            continue
        match = _SHARD_NAME.fullmatch(path)
        if match and int(match["count"]) > 0:
            split.setdefault((match["prefix"], int(match["count"])), []).append(path)
        else:
            sets.append(ShardSet(path[: -len(".gguf")], (path,), 1, split=False))
    sets += [
        ShardSet(prefix, tuple(found), count, split=True)
        for (prefix, count), found in split.items()
    ]
    return sorted(sets, key=lambda each: each.prefix)
