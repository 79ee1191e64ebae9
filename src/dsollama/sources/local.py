"""Where a shard's bytes come from: a file that this machine has already, or the Hub."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from dsollama.errors import StoreNotWritableError, UnreadableShardError
from dsollama.events import Listener
from dsollama.privileges import CALLER, Identity, acting_as, as_caller, owner_of
from dsollama.sources.source import (
    ListedFile,
    Reader,
    Source,
    Stream,
    offline_error,
    read_all,
)
from dsollama.store.files import open_regular, stamp_of

MAX_FOLDER_ENTRIES = 100_000
"""How many files of `--from-dir` are looked at."""


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine that has a shard's bytes.

    Attributes:
        path: where it is.
        shift: what is added to an offset in the shard to get that in the file: 0 in the shard's
            own file, something else where the file is merged.
        stamp: what the file was when the install was planned (`stamp_of`); empty where a published
            digest tells whether the bytes are right.
        reads_as: as whom root reads it, and deletes it (`reader_of`).
    """

    path: Path
    shift: int = 0
    stamp: str = ""
    reads_as: Identity = CALLER


def reader_of(folder: Path) -> Identity:
    """Return as whom root reads the files of a folder that is not the store that it works in.

    As in a store: as its owner, who could else lead root by a link to files that he may not read.

    Raises:
        UnreadableShardError: it is not there, or is root's and others can lay links in it.
    """
    try:
        with as_caller():
            folder.stat()
            return owner_of(folder) or CALLER
    except OSError as error:
        raise _unreadable(folder, error) from error
    except StoreNotWritableError as error:
        raise UnreadableShardError(str(error), error.hint) from error


class ShardReader:
    """Reads shards from local files where there are any, and else from the Hub."""

    def __init__(
        self,
        remote: Reader | None,
        local: Mapping[str, LocalFile],
    ) -> None:
        """Combine them.

        Args:
            remote: the Hub; None where it must not be asked.
            local: by path in the repository, the files that are believed to be the same.
        """
        self._remote = remote
        self._local = dict(local)
        self._counting = threading.Lock()
        self.copied = 0

    def open(self, path: str, start: int, end: int, file_size: int) -> Stream:
        """Return a stream of bytes `start` to `end` (exclusive) of the shard `path`.

        Raises:
            HubOfflineError: only the Hub has the shard, and it must not be asked.
        """
        if path in self._local:
            return _LocalStream(self, self._local[path], start, end)
        if self._remote is None:
            raise offline_error(f"{path} has to come from the Hub")
        return self._remote.open(path, start, end, file_size)

    def read(self, path: str, start: int, end: int, file_size: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of the shard `path`.

        Raises:
            HubError: the Hub does not give them.
            UnreadableShardError: the local file does not.
        """
        with self.open(path, start, end, file_size) as stream:
            return read_all(stream, end - start)

    def cancel(self) -> None:
        """End every read that is under way."""
        if self._remote is not None:
            self._remote.cancel()

    def local(self, path: str) -> LocalFile | None:
        """Return the local file of a shard, if it is still believed in."""
        return self._local.get(path)

    def require_unchanged(self) -> None:
        """Refuse what was read of local files that somebody changed meanwhile.

        Only where no digest tells that; a name that leads elsewhere by now is seen, too.

        Raises:
            UnreadableShardError: one has changed, or is gone.
        """
        for file in self._local.values():
            if file.stamp:
                with _LocalStream(self, file, 0, 0):
                    pass

    def count(self, copied: int) -> None:
        """Note that so many bytes came from a local file; from any thread."""
        with self._counting:
            self.copied += copied

    def reject(self, path: str) -> str | None:
        """Take note that the bytes of `path` were wrong; a local file is not read again.

        Returns:
            What `open` gives from now on, as a sentence; None if it has nothing better.
        """
        local = self._local.pop(path, None)
        if self._remote is None:
            return None
        if local is not None:
            what = f"{local.path}: its bytes are wrong"
            if local.shift:
                what += f" for {path}"
            return f"{what}; fetching this shard from the Hub"
        return f"{path}: its bytes are wrong; fetching this shard again"


class _LocalStream:
    """A range of a local file; what is read is not left in the page cache."""

    def __init__(self, reader: ShardReader, file: LocalFile, start: int, end: int) -> None:
        self._reader = reader
        self._path, self._stamp, self._reads_as = file.path, file.stamp, file.reads_as
        self._start = self._at = start + file.shift
        self._end = end + file.shift
        self._handle = -1

    def __enter__(self) -> Self:
        try:
            with acting_as(self._reads_as):
                self._handle = open_regular(self._path)
            changed = self._stamp and stamp_of(os.fstat(self._handle)) != self._stamp
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if changed:
            self.__exit__()
            raise UnreadableShardError(
                f"{self._path} was changed after the install had begun.",
                "Run the same command again when nothing writes to it any more.",
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            if hasattr(os, "posix_fadvise"):
                read = self._at - self._start
                os.posix_fadvise(self._handle, self._start, read, os.POSIX_FADV_DONTNEED)
            os.close(self._handle)
            self._handle = -1

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view`; at least one byte."""
        most = min(len(view), self._end - self._at)
        try:
            count = os.preadv(self._handle, [view[:most]], self._at)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if count == 0:
            raise UnreadableShardError(
                f"{self._path} became shorter while it was read.", "Run the same command again."
            )
        self._at += count
        self._reader.count(count)
        return count


def find_in_folder(
    folder: Path, files: Iterable[ListedFile], *, unchecked: bool
) -> tuple[dict[str, LocalFile], list[str]]:
    """Look below `folder` for files with the name and size of those of a repository.

    Args:
        folder: where.
        files: of the repository.
        unchecked: whether a file is taken that no published digest can prove; the Hub has it, too.

    Returns:
        The files by path in the repository, and a sentence for each that has another size.

    Raises:
        UnreadableShardError: the folder cannot be read.
    """
    reads_as = reader_of(folder)
    there: dict[str, tuple[Path, os.stat_result]] = {}
    for path, status in gguf_files(folder, reads_as):
        there.setdefault(path.name, (path, status))
    found, notes = {}, []
    for file in files:
        name = file.path.rsplit("/", 1)[-1]
        if name not in there:
            continue
        path, status = there[name]
        if status.st_size != file.size:
            size = status.st_size
            notes.append(f"{path} has {size} bytes and the Hub's has {file.size}: it is not used")
        elif file.sha256:
            found[file.path] = LocalFile(path, reads_as=reads_as)
        elif unchecked:
            found[file.path] = LocalFile(path, stamp=stamp_of(status), reads_as=reads_as)
        else:
            notes.append(
                f"{path} is not used: the Hub publishes no digest to check it by "
                "(HF_HUB_OFFLINE=1 takes the files as they are)"
            )
    return found, notes


def gguf_files(folder: Path, reads_as: Identity) -> list[tuple[Path, os.stat_result]]:
    """Return the GGUF files below `folder`, links to files included, and what each is.

    Args:
        folder: where.
        reads_as: as whom root looks (`reader_of`).

    Raises:
        UnreadableShardError: the folder cannot be read, or holds too much to be meant.
    """
    with acting_as(reads_as):
        return [(path, path.stat()) for path in _gguf_files(folder)]


def _gguf_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(folder, error) from error

    seen = 0
    for root, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        seen += len(names)
        if seen > MAX_FOLDER_ENTRIES:
            raise UnreadableShardError(
                f"{folder} holds more than {MAX_FOLDER_ENTRIES} files.",
                "Name the folder that holds the shards.",
            )
        for name in sorted(names):
            path = Path(root, name)
            if name.endswith(".gguf") and path.is_file():
                yield path


def find_in_cache(repository: str, files: Iterable[ListedFile]) -> dict[str, LocalFile]:
    """Return the files that huggingface_hub's cache holds, whatever their commit.

    The cache names them by their digest (huggingface_hub, file_download.py).
    """
    owner = repo_folder_name(repo_id=repository, repo_type="model")
    blobs = Path(constants.HF_HUB_CACHE) / owner / "blobs"
    try:
        reads_as = reader_of(blobs)
    except UnreadableShardError:  # there is none, or others can lay links in it
        return {}
    found = {}
    for file in files:
        path = blobs / (file.sha256 or "-")
        try:
            with acting_as(reads_as), open(open_regular(path), "rb") as blob:  # noqa: PTH123
                same = os.fstat(blob.fileno()).st_size == file.size
        except OSError:
            continue
        if same:
            found[file.path] = LocalFile(path, reads_as=reads_as)
    return found


def _unreadable(path: Path, error: OSError) -> UnreadableShardError:
    return UnreadableShardError(
        f"{path} cannot be read: {error.strerror or error}.",
        "Name another folder with --from-dir, or leave it out: what is missing is downloaded.",
    )


def open_shards(
    source: Source | None,
    repository: str,
    commit: str,
    local: Mapping[str, LocalFile],
    listener: Listener,
) -> ShardReader:
    """Return what reads shards: the one place where a reader is made for an install.

    Args:
        source: of the files; None where it must not be asked.
        repository: OWNER/REPO.
        commit: that pins the files.
        local: files of this machine to read instead, by path in the repository.
        listener: hears of retries.
    """
    return ShardReader(source.reader(repository, commit, listener) if source else None, local)
