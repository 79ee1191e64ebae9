"""What a repository holds, pinned to one commit."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoSibling

from dsollama.errors import TransferError
from dsollama.settings import usual_patience
from dsollama.sources.hub.bounded import use_own_client
from dsollama.sources.hub.credentials import credentials
from dsollama.sources.hub.failures import hub_failures
from dsollama.sources.hub.guard import at_home
from dsollama.sources.source import MAX_FILE_BYTES, ListedFile, Listing, is_sound_path
from dsollama.waiting import within

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def list_repository(
    name: str, *, revision: str | None, endpoint: str, anonymous: bool = False
) -> Listing:
    """Ask the Hub for the files of `name` at `revision` (default: the main branch).

    Raises:
        HubError: one of its kinds (`hub.failures`).
        UnusableTokenError: there is a token that cannot be one.
    """
    use_own_client()
    patience = usual_patience()
    proof = credentials(endpoint, anonymous=anonymous)
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
    return Listing(name, pinned[0], _by_path(name, files))


def _file(name: str, sibling: RepoSibling) -> ListedFile | None:
    """Return a file of the listing, or None where it has no size or no sound path."""
    digest = sibling.lfs.sha256 if sibling.lfs else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if digest is not None and not _SHA256.fullmatch(digest):
        raise TransferError(f"The Hub's listing of {name} has a malformed digest.")
    path = sibling.rfilename
    if size is None or not is_sound_path(path):
        return None
    if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
        raise TransferError(f"The Hub's listing of {name} has a malformed size.")
    return ListedFile(path, size, digest)


def _by_path(name: str, files: Iterable[ListedFile | None]) -> dict[str, ListedFile]:
    found: dict[str, ListedFile] = {}
    for file in files:
        if file is not None and found.setdefault(file.path, file) != file:
            raise TransferError(f"The Hub's listing of {name} has {file.path!r} twice.")
    return found
