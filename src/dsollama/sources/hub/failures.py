"""Foreign exceptions of the Hub's clients, as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import errors as hf

from dsollama.errors import (
    AccessDeniedError,
    DsollamaError,
    HubOfflineError,
    HubUnreachableError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    TransferError,
    UsageError,
)
from dsollama.sources.hub.credentials import access_hint

_DENIED = (401, 403)


@contextmanager
def hub_failures(endpoint: str, repository: str) -> Iterator[None]:
    """Turn what huggingface_hub raises inside the block into the errors of `dsollama.errors`."""
    try:
        yield
    except hf.OfflineModeIsEnabled as error:
        raise HubOfflineError(
            "HF_HUB_OFFLINE is set and the Hub is needed.", "Unset HF_HUB_OFFLINE for this command."
        ) from error
    except hf.HFValidationError as error:
        raise UsageError(
            f"{repository!r} is not a repository's name.", "It is written OWNER/REPO."
        ) from error
    except hf.HfHubHTTPError as error:
        raise _of_answer(error, endpoint, repository) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise HubUnreachableError(
            f"The Hub at {endpoint} cannot be reached: {_cause(error)}.",
            "Check the network, the proxy and HF_ENDPOINT; what was downloaded is kept.",
        ) from error


def _of_answer(error: hf.HfHubHTTPError, endpoint: str, repository: str) -> DsollamaError:
    status = error.response.status_code if error.response is not None else 0
    if isinstance(error, hf.GatedRepoError):
        return AccessDeniedError(
            f"The repository {repository} is gated and this machine's token does not open it.",
            access_hint(endpoint),
        )
    if isinstance(error, hf.RevisionNotFoundError):
        return RevisionNotFoundError(
            f"The repository {repository} has no such revision.",
            "Leave out --revision, or take a branch, tag or commit of its history.",
        )
    if isinstance(error, hf.EntryNotFoundError):
        return RevisionNotFoundError(
            f"The repository {repository} does not have this file any more.",
            "Run the same command again for a new listing.",
        )
    if isinstance(error, hf.RepositoryNotFoundError):
        return RepositoryNotFoundError(
            f"The Hub at {endpoint} shows no repository {repository}.",
            f"Check the spelling. A private one needs a token: {access_hint(endpoint)}",
        )
    if status in _DENIED:
        return AccessDeniedError(
            f"The Hub refuses access to {repository} (HTTP {status}).", access_hint(endpoint)
        )
    return TransferError(
        f"The Hub at {endpoint} answered HTTP {status} for {repository}.",
        "It may be busy: try again in a few minutes.",
    )


def _cause(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".")
