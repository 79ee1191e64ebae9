"""What a repository holds, pinned to one commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi, get_token

from dsollama.errors import HubOfflineError, TransferError
from dsollama.hub.failures import hub_failures

LISTING_TIMEOUT = 30.0
"""Seconds that the Hub may take to answer a listing."""

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
    """
    if offline:
        raise HubOfflineError(
            "HF_HUB_OFFLINE is set and the Hub is needed.", "Unset HF_HUB_OFFLINE for this command."
        )
    api = HfApi(endpoint=endpoint, token=get_token(), library_name="dsollama")
    with hub_failures(endpoint, name):
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT)
    if not _COMMIT.fullmatch(info.sha or ""):
        raise TransferError(f"The Hub at {endpoint} names no commit for {name}.")
    files = {}
    for sibling in info.siblings or ():
        digest = sibling.lfs.sha256 if sibling.lfs else None
        size = sibling.lfs.size if sibling.lfs else sibling.size
        if digest is not None and not _SHA256.fullmatch(digest):
            raise TransferError(f"The Hub's listing of {name} has a malformed digest.")
        if size is not None and size >= 0:
            files[sibling.rfilename] = RemoteFile(sibling.rfilename, size, digest)
    return Repository(name, str(info.sha), files)
