"""A plain folder on a web server, with a file of checksums: how many mirrors look.

`SHA256SUMS` says which files there are and which digest each has, as `sha256sum *.gguf` writes it.
The server must give ranges, as nginx, Apache and Caddy do.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from dsollama.addresses import Endpoint, origin
from dsollama.errors import NoGgufError, RepositoryNotFoundError, TransferError, UsageError
from dsollama.events import Listener
from dsollama.settings import Patience
from dsollama.sources.ranges import RangeReader, RetryableError
from dsollama.sources.source import ListedFile, Listing, is_sound_path

CHECKSUMS = "SHA256SUMS"
MAX_CHECKSUMS_BYTES = 2**20
MAX_FILES = 512
"""GGUF files of one folder; each is asked for its size."""

_PREFIX = "folder+"
"""Tells the name of a web folder from that of a Hub."""

_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{64}) [ *](?:\./)?(?P<path>.+)")
_COMMIT_DIGITS = 40


@dataclass(frozen=True)
class WebFolder:
    """A folder of a web server; `url` has no slash at its end."""

    url: str
    keeps_commits: ClassVar[bool] = False

    @classmethod
    def typed(cls, url: str) -> WebFolder | None:
        """Return the folder at an address that a user types; None where it is no address.

        Raises:
            UsageError: it has a login.
        """
        try:
            endpoint = Endpoint.parse(url)
        except ValueError:
            return None
        if endpoint.login:
            raise UsageError(
                "--from-url takes no login: a web folder is read without one.",
                "Leave out USER:PASSWORD@.",
            )
        return cls(endpoint.public)

    @classmethod
    def named(cls, name: str) -> WebFolder | None:
        """Return the folder that the ledger calls `name`; None where that names none."""
        url = name.removeprefix(_PREFIX)
        if url == name:
            return None
        try:
            origin(url)
        except ValueError:
            return None
        return cls(url)

    @property
    def name(self) -> str:
        """The folder's address behind `folder+`."""
        return _PREFIX + self.url

    def listing(self, repository: str, revision: str | None) -> Listing:
        """Return the GGUF files that SHA256SUMS lists.

        The commit is the beginning of that file's own digest: other checksums are another commit.

        Raises:
            HubError: the server cannot be reached, or has no such folder.
            UsageError: a revision is asked for, which a folder has not.
        """
        if revision:
            raise UsageError("A web folder has no revisions.", "Leave out --revision.")
        reader = self._reader(lambda _event: None)
        try:
            size = reader.size(CHECKSUMS)
            if size > MAX_CHECKSUMS_BYTES:
                raise TransferError(f"{self.url}/{CHECKSUMS} is larger than any list of models.")
            text = reader.read(CHECKSUMS, 0, size, size)
            digests = self._digests(text.decode("utf-8", "replace"))
            files = {path: ListedFile(path, reader.size(path), digests[path]) for path in digests}
        except RetryableError as error:
            raise TransferError(
                f"The folder {self.url} cannot be read: {error}.",
                "Try again in a few minutes; open the address in a browser to see what it says.",
            ) from error
        commit = hashlib.sha256(text).hexdigest()[:_COMMIT_DIGITS]
        return Listing(repository, commit, files)

    def reader(self, _repository: str, _commit: str, listener: Listener) -> RangeReader:
        """Return what opens ranges of the files."""
        return self._reader(listener)

    def address(self, _repository: str, _commit: str, path: str) -> str:
        """Return the address of a file."""
        return f"{self.url}/{quote(path)}"

    def install_words(self, _commit: str) -> tuple[str, list[str]]:
        """Return the option that names the folder."""
        return "", ["--from-url", self.url]

    def _reader(self, listener: Listener) -> RangeReader:
        return RangeReader(_Fixed(self), listener)

    def _digests(self, text: str) -> dict[str, str]:
        matches = (_LINE.fullmatch(line.rstrip("\r")) for line in text.split("\n"))
        found: dict[str, str] = {}
        for match in filter(None, matches):
            path, digest = match["path"], match["digest"].lower()
            if not path.endswith(".gguf") or not is_sound_path(path):
                continue
            if found.setdefault(path, digest) != digest:
                raise TransferError(f"{self.url}/{CHECKSUMS} has two digests of {path!r}.")
        if not found:
            raise NoGgufError(
                f"{self.url}/{CHECKSUMS} lists no GGUF file.",
                f"It is made with `sha256sum *.gguf > {CHECKSUMS}` in the folder of the files.",
            )
        if len(found) > MAX_FILES:
            raise TransferError(f"{self.url}/{CHECKSUMS} lists more than {MAX_FILES} GGUF files.")
        return found


@dataclass(frozen=True)
class _Fixed:
    """Files lie below the folder's own address, and nobody proves who he is."""

    folder: WebFolder
    proof: None = None

    def find(self, path: str, _cancelled: threading.Event, _patience: Patience) -> str:
        return self.folder.address("", "", path)

    def forget(self, path: str) -> None:
        """Say that it is gone: there is no other address.

        Raises:
            RepositoryNotFoundError: always.
        """
        raise RepositoryNotFoundError(
            f"The server does not give {self.folder.url}/{path}.",
            f"The folder must hold {CHECKSUMS} and the files that it lists, readable by everyone.",
        )
