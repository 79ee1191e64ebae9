"""Ranges of a repository's files over HTTP, with the token kept to the Hub itself.

huggingface_hub resolves a file to its CDN address; the bytes come through `requests`, which on
this path is four times as fast as httpx (docs/design.md) and lets a range be asked for.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url

from dsollama import __version__
from dsollama.errors import AccessDeniedError, HubError, HubUnreachableError, TransferError
from dsollama.events import Listener, Noted
from dsollama.hub.failures import hub_failures

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as stalled."""

RESOLVE_TIMEOUT = 20.0
MAX_FAILURES = 6
"""Failures in a row, without a byte in between, after which a range is given up."""

MAX_BACKOFF = 30.0
CHUNK_BYTES = 2**20
_OK, _PARTIAL, _TOO_MANY, _SERVER_ERROR = 200, 206, 429, 500
_RENEW = (401, 403, 404, 410)
"""What a CDN answers when its signed address has expired: resolve again."""


class _RetryableError(Exception):
    """A failure worth another try; `wait` seconds were asked for by the server, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass
class RangeReader:
    """Reads ranges of the files of one repository at one commit; safe to share by threads.

    Attributes:
        endpoint: address of the Hub.
        repository: OWNER/REPO.
        commit: full hash.
        listener: hears of retries, from any thread.
    """

    endpoint: str
    repository: str
    commit: str
    listener: Listener

    def __post_init__(self) -> None:
        self._token = get_token()
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Let no stream try again; the one under way ends with its next chunk or timeout."""
        self._cancelled.set()

    def read(self, path: str, start: int, end: int, file_size: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of `path`.

        Raises:
            HubError: after bounded retries.
        """
        return b"".join(self.stream(path, start, end, file_size))

    def stream(self, path: str, start: int, end: int, file_size: int) -> Iterator[bytes]:
        """Yield bytes `start` to `end` (exclusive) of `path` in chunks of at most 1 MiB.

        After a failure it goes on where it was, up to MAX_FAILURES times in a row.

        Raises:
            HubError: after bounded retries, or at once where trying again cannot help.
        """
        at, failures = start, 0
        while at < end:
            try:
                for chunk in self._once(path, at, end, file_size):
                    at += len(chunk)
                    failures = 0
                    yield chunk
            except _RetryableError as error:
                failures += 1
                if failures >= MAX_FAILURES:
                    raise TransferError(
                        f"The download of {path} failed {failures} times in a row: {error}.",
                        "What was verified is kept: run the same command again to go on.",
                    ) from error
                wait = error.wait if error.wait is not None else _backoff(failures)
                self.listener(
                    Noted(f"{path}: {error}; try {failures + 1} in {wait:.1f} s, at byte {at}")
                )
                if self._cancelled.wait(wait):
                    raise TransferError("The download was stopped.") from error

    def _once(self, path: str, start: int, end: int, file_size: int) -> Iterator[bytes]:
        """One request; raises _RetryableError on anything that may pass."""
        try:
            with self._get(path, start, end) as answer:
                self._check(path, answer, start, end, file_size)
                left = end - start
                for chunk in answer.iter_content(min(CHUNK_BYTES, left)):
                    if len(chunk) > left:
                        raise _RetryableError("the server sent more than was asked for")
                    left -= len(chunk)
                    yield chunk
                if left:
                    raise _RetryableError(f"the connection closed {left} bytes early")
        except requests.RequestException as error:
            raise _RetryableError(_reason(error)) from error

    def _get(self, path: str, start: int, end: int) -> requests.Response:
        address = self._resolve(path)
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        headers["User-Agent"] = f"dsollama/{__version__}"
        if self._token and _origin(address) == _origin(self.endpoint):
            headers["Authorization"] = f"Bearer {self._token}"
        return self._session().get(
            address,
            headers=headers,
            stream=True,
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            allow_redirects=False,
            auth=_no_auth,
        )

    def _check(
        self, path: str, answer: requests.Response, start: int, end: int, file_size: int
    ) -> None:
        status = answer.status_code
        if status == _PARTIAL:
            claimed = answer.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", claimed)
            if not match or (int(match[1]), int(match[2])) != (start, end - 1):
                raise _RetryableError(f"the server sent the range {claimed!r}")
            if match[3] not in {"*", str(file_size)}:
                raise TransferError(
                    f"{path} has {match[3]} bytes on the server and {file_size} in the listing.",
                    "The file is not the one that the Hub lists; try again later.",
                )
            return
        if status == _OK and (start, end) == (0, file_size):
            return
        if status in _RENEW:
            with self._lock:
                self._addresses.pop(path, None)
            raise _RetryableError(f"the server answered HTTP {status}; asking for a new address")
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            raise _RetryableError(f"the server answered HTTP {status}", _retry_after(answer))
        raise TransferError(
            f"The server answered HTTP {status} to a request for a part of {path}.",
            "A proxy between this machine and the Hub may not support ranges.",
        )

    def _resolve(self, path: str) -> str:
        """Return the address that the Hub's resolve URL leads to, asking once per file."""
        with self._lock:
            if path in self._addresses:
                return self._addresses[path]
            url = hf_hub_url(self.repository, path, revision=self.commit, endpoint=self.endpoint)
            try:
                with hub_failures(self.endpoint, self.repository):
                    found = get_hf_file_metadata(
                        url,
                        token=self._token or False,
                        timeout=RESOLVE_TIMEOUT,
                        endpoint=self.endpoint,
                        library_name="dsollama",
                    )
            except (HubUnreachableError, TransferError) as error:
                raise _RetryableError(str(error).rstrip(".")) from error
            except AccessDeniedError:
                raise
            except HubError as error:
                raise TransferError(f"The Hub does not give {path}: {error}", error.hint) from error
            self._addresses[path] = found.location
            return found.location

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
        return session


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from adding a password of ~/.netrc to an address of a CDN."""
    return request


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds that the server asks to wait (Retry-After, or the `t` of RateLimit), capped."""
    value = answer.headers.get("Retry-After", "")
    limit = re.search(r"\bt=(\d+)", answer.headers.get("RateLimit", ""))
    seconds = value if value.isdecimal() else limit[1] if limit else ""
    return min(float(seconds), 10 * MAX_BACKOFF) if seconds else None


def _backoff(failures: int) -> float:
    """Seconds before the next try: doubling from half a second, with jitter."""
    return min(2.0 ** (failures - 2), MAX_BACKOFF) * random.uniform(0.5, 1.0)  # noqa: S311


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "the connection stalled"
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return f"the request failed ({type(error).__name__})"
