"""The Hugging Face Hub, or a mirror that speaks as it does (HF_ENDPOINT), as a source."""

from __future__ import annotations

import shlex
import threading
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from huggingface_hub import get_hf_file_metadata, hf_hub_url

from dsollama.errors import (
    AccessDeniedError,
    CertificateError,
    HubError,
    HubUnreachableError,
    TransferError,
    UnsafeRedirectError,
)
from dsollama.events import Listener
from dsollama.settings import Patience
from dsollama.sources.hub.bounded import use_own_client
from dsollama.sources.hub.credentials import credentials
from dsollama.sources.hub.failures import hub_failures
from dsollama.sources.hub.guard import at_home
from dsollama.sources.hub.listing import list_repository
from dsollama.sources.ranges import Proof, RangeReader, RetryableError
from dsollama.sources.source import Listing
from dsollama.waiting import within

WITHOUT_TOKEN = "HF_HUB_DISABLE_IMPLICIT_TOKEN=1"  # noqa: S105 - keeps one from being sent
"""Before a command: the user's token is not sent; huggingface_hub's own variable."""


@dataclass(frozen=True)
class HuggingFace:
    """A Hub.

    Attributes:
        name: its address, without a login and without a slash at its end.
        anonymous: keep the token back: the user did not choose this address.
    """

    name: str
    anonymous: bool = False
    keeps_commits: ClassVar[bool] = True

    def listing(self, repository: str, revision: str | None) -> Listing:
        """Ask the Hub for the files of OWNER/REPO; None is the newest of its main branch.

        Raises:
            HubError: one of its kinds (`hub.failures`).
            UnusableTokenError: there is a token that cannot be one.
        """
        return list_repository(
            repository, revision=revision, endpoint=self.name, anonymous=self.anonymous
        )

    def reader(self, repository: str, commit: str, listener: Listener) -> RangeReader:
        """Return what opens ranges of the files.

        Raises:
            UnusableTokenError: there is a token that cannot be one.
        """
        return RangeReader(_Resolver(self.name, repository, commit, self.anonymous), listener)

    def address(self, repository: str, commit: str, path: str) -> str:
        """Return the address of a file, which leads to the CDN's."""
        return f"{self.name}/{repository}/resolve/{commit}/{path}"

    def install_words(self, commit: str) -> tuple[str, list[str]]:
        """Return the commit as an option; for another Hub than the user's, the settings for it.

        The ledger names that one, and whoever can write the store can write the ledger: so it gets
        no token.
        """
        settings = f"{WITHOUT_TOKEN} HF_ENDPOINT={shlex.quote(self.name)}" if self.anonymous else ""
        return settings, ["--revision", commit]


class _Resolver:
    """Asks the Hub once for each file where it is: at a CDN, by an address that expires."""

    def __init__(self, endpoint: str, repository: str, commit: str, anonymous: bool) -> None:
        use_own_client()
        self._endpoint, self._repository, self._commit = endpoint, repository, commit
        self._credentials = credentials(endpoint, anonymous=anonymous)
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def proof(self) -> Proof:
        """The token or the login, for the Hub alone."""
        return self._credentials

    def forget(self, path: str) -> None:
        """Ask again the next time."""
        with self._lock:
            self._addresses.pop(path, None)

    def find(self, path: str, cancelled: threading.Event, patience: Patience) -> str:
        """Return the address that the Hub's resolve URL leads to.

        Raises:
            RetryableError: the Hub cannot be reached now.
            HubError: it gives no such file.
        """
        with self._lock:
            if path not in self._addresses:
                self._addresses[path] = self._resolved(path, cancelled, patience)
            return self._addresses[path]

    def _resolved(self, path: str, cancelled: threading.Event, patience: Patience) -> str:
        try:
            with hub_failures(self._endpoint, self._repository):
                url = hf_hub_url(
                    self._repository, path, revision=self._commit, endpoint=self._endpoint
                )
                ask = partial(
                    get_hf_file_metadata,
                    url,
                    token=False,
                    headers=self._credentials.headers,
                    timeout=patience.read,
                    endpoint=self._endpoint,
                    library_name="dsollama",
                )
                asking = at_home(self._credentials.home, ask)
                return within(patience.answer, cancelled, asking).location
        except (HubUnreachableError, TransferError) as error:
            raise RetryableError(str(error).rstrip(".")) from error
        except (AccessDeniedError, CertificateError, UnsafeRedirectError):
            raise
        except HubError as error:
            raise TransferError(f"The Hub does not give {path}: {error}", error.hint) from error
