"""What a repository holds, pinned to one commit."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoSibling

from dsollama.errors import HubOfflineError, TransferError
from dsollama.hub.bounded import use_own_client
from dsollama.hub.credentials import credentials
from dsollama.hub.failures import hub_failures
from dsollama.hub.guard import at_home
from dsollama.settings import usual_patience
from dsollama.waiting import within

MAX_PATH = 1024
"""Characters of a file's path; a longer one is not looked at."""

MAX_FILE_BYTES = 2**63 - 1
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: its path in the repository; never used as a path on this machine.
        size: bytes.
        sha256: digest of an LFS or Xet file, in hex; None for a small one kept in git itself.
    """

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        name: OWNER/REPO.
        commit: the commit's full hash.
        files: by path.
    """

    name: str
    commit: str
    files: Mapping[str, RemoteFile]


def list_repository(
    name: str, *, revision: str | None, endpoint: str, offline: bool = False
) -> Repository:
    """Ask the Hub for the files of `name` at `revision` (default: the main branch).

    Raises:
        HubError: one of its kinds (`hub.failures`).
        UnusableTokenError: there is a token that cannot be one.
    """
    if offline:
        raise HubOfflineError(
            "HF_HUB_OFFLINE is set and the Hub is needed.", "Unset HF_HUB_OFFLINE for this command."
        )
    use_own_client()
    patience = usual_patience()
    proof = credentials(endpoint)
    api = HfApi(endpoint=endpoint, token=False, headers=proof.headers, library_name="dsollama")
    try:
        with hub_failures(endpoint, name):
            info = within(
                patience.answer,
                threading.Event(),
                at_home(
                    proof.home,
                    lambda: api.model_info(
                        name, revision=revision, files_metadata=True, timeout=patience.read
                    ),
                ),
            )
        files = [_file(name, sibling) for sibling in info.siblings or ()]
        pinned = _COMMIT.fullmatch(info.sha or "")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # What the client, or we, meet in JSON of another shape, or in no JSON at all.
        raise TransferError(
            f"The Hub at {endpoint} answered with something that is no listing of {name}.",
            "A proxy or a login page may stand between this machine and the Hub.",
        ) from error
    if not pinned:
        raise TransferError(f"The Hub at {endpoint} names no commit for {name}.")
    return Repository(name, pinned[0], _by_path(name, files))


def _file(name: str, sibling: RepoSibling) -> RemoteFile | None:
    """Return a file of the listing, or None where it has no size or no sound path."""
    digest = sibling.lfs.sha256 if sibling.lfs else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if digest is not None and not _SHA256.fullmatch(digest):
        raise TransferError(f"The Hub's listing of {name} has a malformed digest.")
    path = sibling.rfilename
    if size is None or not _is_sound(path):
        return None
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise TransferError(f"The Hub's listing of {name} has a malformed size.")
    return RemoteFile(path, size, digest)


def _is_sound(path: str) -> bool:
    """Whether a path of git is one that an address and a terminal can have."""
    parts = path.split("/")
    return path.isprintable() and len(path) <= MAX_PATH and not {"", ".", ".."} & set(parts)


def _by_path(name: str, files: Iterable[RemoteFile | None]) -> dict[str, RemoteFile]:
    found: dict[str, RemoteFile] = {}
    for file in files:
        if file is not None and found.setdefault(file.path, file) != file:
            raise TransferError(f"The Hub's listing of {name} has {file.path!r} twice.")
    return found
