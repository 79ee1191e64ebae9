"""Ranges of a repository's files over HTTP, with the token kept to the Hub itself.

huggingface_hub resolves a file to its CDN address; the bytes come through `requests`, which on
this path is four times as fast as httpx (docs/design.md) and lets a range be asked for.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Protocol, Self
from weakref import WeakSet

import requests
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from dsollama import __version__
from dsollama.addresses import redirected
from dsollama.errors import (
    AccessDeniedError,
    CertificateError,
    HubError,
    HubUnreachableError,
    TransferError,
    UnsafeRedirectError,
)
from dsollama.events import Listener, Noted
from dsollama.hub.bounded import use_own_client
from dsollama.hub.credentials import credentials
from dsollama.hub.failures import hub_failures
from dsollama.hub.guard import at_home, unsafe_redirect
from dsollama.limits import start_thread
from dsollama.net.sessions import new_session
from dsollama.settings import Patience, usual_patience
from dsollama.waiting import awake, within

CONNECT_TIMEOUT = 10.0
"""In seconds; how long everything else is waited for says `settings.Patience`."""

MAX_FAILURES = 6
"""Failures in a row, with less than SOUND_BYTES in between, after which a range is given up."""

SOUND_BYTES = 2**18
"""A connection that breaks again and again after less than this gets nowhere."""

GIVE_UP_SECONDS = 900.0
"""And after so long without SOUND_BYTES, whatever pauses a server asked for; time for which the
process was stopped does not count."""

MAX_REDIRECTS = 5
MIN_READ, MAX_READ = 2**14, 2**20
QUICK_READ, SLOW_READ = 0.1, 0.5
"""Bytes asked of the connection at once: doubled after a quick read, halved after a slow one (in
seconds), so that a slow connection's bytes are seen soon, and one that trickles stands out."""

_OK, _PARTIAL, _NO_SUCH_RANGE, _TOO_MANY, _SERVER_ERROR = 200, 206, 416, 429, 500
_RENEW = (401, 403, 404, 410)
"""What a CDN answers when its signed address has expired: resolve again."""

_STALLED = "the connection stalled"


class _RetryableError(Exception):
    """A failure worth another try; `wait` seconds were asked for by the server, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Stream(Protocol):
    """Bytes of a file in order; a context manager."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *_: object) -> None:
        """Give up what it holds."""
        ...

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view` with the next bytes, at least one; return how many."""
        ...


def read_all(stream: Stream, size: int) -> bytes:
    """Return the next `size` bytes of a stream."""
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        filled += stream.readinto(buffer[filled:])
    return buffer.tobytes()


class RangeStream:
    """Bytes of a file in order, over as many requests as it takes; use as a context manager."""

    def __init__(self, reader: RangeReader, path: str, start: int, end: int, size: int) -> None:
        """Prepare; the first read asks for bytes `start` to `end` of `path`, of `size` bytes."""
        self._reader = reader
        self._path = path
        self._at = start
        self._end = end
        self._size = size
        self._answer: requests.Response | None = None
        self._failures = 0
        self._sound = start
        self._since = awake()
        self._amount = reader.usual_amount

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def readinto(self, view: memoryview) -> int:
        """Fill the beginning of `view` with the next bytes, and return how many, at least one.

        After a failure it goes on where it was, up to MAX_FAILURES times in a row and for at most
        GIVE_UP_SECONDS.

        Raises:
            HubError: after bounded retries, or at once where trying again cannot help.
        """
        while True:
            try:
                data = self._receive(min(len(view), self._end - self._at))
            except _RetryableError as error:
                self._close()
                self._wait(error)
            else:
                self._at += len(data)
                if self._at - self._sound >= SOUND_BYTES or not self._failures:
                    self._failures, self._sound, self._since = 0, self._at, awake()
                if self._at == self._end:
                    self._close()
                view[: len(data)] = data
                return len(data)

    def _receive(self, most: int) -> bytes:
        if self._answer is None:
            self._answer = self._reader.request(self._path, self._at, self._end, self._size)
        began = time.monotonic()
        data = self._reader.receive(self._answer, min(self._amount, most))
        seconds = time.monotonic() - began
        if seconds < QUICK_READ:
            self._amount = min(2 * self._amount, MAX_READ)
        elif seconds > SLOW_READ:
            self._amount = max(self._amount // 2, MIN_READ)
        self._reader.usual_amount = self._amount
        return data

    def _wait(self, error: _RetryableError) -> None:
        """Wait before the next try, or give up."""
        self._failures += 1
        patience = self._reader.patience
        wait = _backoff(self._failures, patience) if error.wait is None else error.wait
        wait = min(wait, 10 * patience.wait)
        late = awake() + wait > self._since + GIVE_UP_SECONDS
        if self._failures >= MAX_FAILURES or late:
            times = "once" if self._failures == 1 else f"{self._failures} times in a row"
            raise TransferError(
                f"The download of {self._path} failed {times}: {error}.",
                "What was downloaded is kept: run the same command again to go on.",
            ) from error
        if not self._reader.cancelled.is_set():
            self._reader.listener(
                Noted(
                    f"{self._path}: {error}; try {self._failures + 1} in {wait:.1f} s, "
                    f"at byte {self._at}"
                )
            )
        if self._reader.cancelled.wait(wait):
            raise TransferError("The download was stopped.") from error

    def _close(self) -> None:
        """Give the connection back, or close it where its body was not read to the end."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None


class _Watch:
    """Ends reads that take longer than `limit` seconds in which the process was not stopped.

    The socket's own timeout counts from each byte, so a server that trickles would hold a
    connection for days. Which of the two limits ends a silent read first is chance.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._reads: dict[int, tuple[float, requests.Response]] = {}
        self._ended: WeakSet[requests.Response] = WeakSet()
        self._running = False

    @contextmanager
    def over(self, answer: requests.Response) -> Iterator[None]:
        """Watch over the block, which reads from `answer`."""
        key = threading.get_ident()
        with self._lock:
            if not self._running:
                start_thread(self._run)
                self._running = True
            self._reads[key] = (awake() + self._limit, answer)
        try:
            yield
        finally:
            with self._lock:
                del self._reads[key]

    def ended(self, answer: requests.Response) -> bool:
        """Whether a read from `answer` was ended, so that its failure is no other than a stall."""
        with self._lock:
            return answer in self._ended

    def break_all(self) -> None:
        """End every read that is under way."""
        self._break(float("inf"))

    def _run(self) -> None:
        while True:
            time.sleep(min(1.0, self._limit / 4))
            self._break(awake())
            with self._lock:
                if not self._reads:
                    self._running = False
                    return

    def _break(self, now: float) -> None:
        with self._lock:
            late = [answer for deadline, answer in self._reads.values() if deadline < now]
            self._ended.update(late)
            for answer in late:
                with suppress(OSError, ValueError):  # it may be ending by itself
                    answer.raw.shutdown()


@dataclass
class RangeReader:
    """Reads ranges of the files of one repository at one commit; safe to share by threads.

    Attributes:
        endpoint: address of the Hub.
        repository: OWNER/REPO.
        commit: full hash.
        listener: hears of retries, from any thread.
        anonymous: keep the token back, for an address that the user did not choose.
        patience: how long a connection may be silent, and how long to wait between tries.
    """

    endpoint: str
    repository: str
    commit: str
    listener: Listener
    anonymous: bool = False
    patience: Patience = field(default_factory=usual_patience)

    def __post_init__(self) -> None:
        use_own_client()
        self._proof = credentials(self.endpoint, anonymous=self.anonymous)
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._watch = _Watch(self.patience.read)
        self.usual_amount = MIN_READ
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """End every read that is under way, and let none begin."""
        self.cancelled.set()
        self._watch.break_all()

    def open(self, path: str, start: int, end: int, file_size: int) -> RangeStream:
        """Return a stream of bytes `start` to `end` (exclusive) of `path`, of `file_size` bytes."""
        return RangeStream(self, path, start, end, file_size)

    def read(self, path: str, start: int, end: int, file_size: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of `path`.

        Raises:
            HubError: after bounded retries.
        """
        with self.open(path, start, end, file_size) as stream:
            return read_all(stream, end - start)

    def request(self, path: str, start: int, end: int, file_size: int) -> requests.Response:
        """Ask for a range once and return the answer, its body unread.

        Raises:
            _RetryableError: it failed in a way that may pass.
            HubError: it failed for good.
        """
        try:
            answer = self._get(path, start, end)
        except (requests.RequestException, TimeoutError) as error:
            self._local.session = None  # an abandoned request may still be using it
            raise _RetryableError(_reason(error)) from error
        try:
            self._check(path, answer, start, end, file_size)
        except BaseException:
            answer.close()
            raise
        return answer

    def receive(self, answer: requests.Response, amount: int) -> bytes:
        """Return the next bytes of an answer's body, `amount` of them except at its end.

        Raises:
            _RetryableError: the connection broke, ended early or stalled.
        """
        try:
            with self._watch.over(answer):
                data: bytes = answer.raw.read(amount)
        except (HTTPError, OSError) as error:
            reason = _STALLED if self._watch.ended(answer) else _reason(error)
            raise _RetryableError(reason) from error
        if not data:
            raise _RetryableError("the connection closed early")
        return data

    def _get(self, path: str, start: int, end: int) -> requests.Response:
        """Ask the file's address for a range, or where that leads to; a few times at most."""
        address = self._resolve(path)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get_at(address, start, end)
            if not answer.is_redirect:
                return answer
            answer.close()
            try:
                address = redirected(address, answer.headers["Location"])
            except ValueError as error:
                raise unsafe_redirect(path, error) from error
        raise TransferError(
            f"The server redirects {path} more than {MAX_REDIRECTS} times.",
            "A proxy or a login page may stand between this machine and the Hub.",
        )

    def _get_at(self, address: str, start: int, end: int) -> requests.Response:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        headers["User-Agent"] = f"dsollama/{__version__}"
        ask = partial(
            self._session().get,
            address,
            headers=headers,
            stream=True,
            timeout=(CONNECT_TIMEOUT, self.patience.read),
            allow_redirects=False,
            auth=self._proof,  # also keeps requests from adding a password of ~/.netrc
        )
        return within(
            CONNECT_TIMEOUT + self.patience.read, self.cancelled, ask, requests.Response.close
        )

    def _check(
        self, path: str, answer: requests.Response, start: int, end: int, file_size: int
    ) -> None:
        status = answer.status_code
        encoding = answer.headers.get("Content-Encoding", "identity")
        if status in {_OK, _PARTIAL} and encoding != "identity":
            raise TransferError(
                f"The server sends {path} compressed ({encoding[:40]!r}), which was not asked for.",
                "A proxy between this machine and the Hub may do that; go around it.",
            )
        if status == _PARTIAL:
            claimed = answer.headers.get("Content-Range", "")
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", claimed)
            if not match or (int(match[1]), int(match[2])) != (start, end - 1):
                said = f"the range {claimed[:60]!r}" if claimed else "a range without its place"
                raise _RetryableError(f"the server sent {said}")
            if match[3] not in {"*", str(file_size)}:
                raise _changed(path, match[3], file_size)
            return
        beyond = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
        if status == _NO_SUCH_RANGE and beyond and beyond[1] != str(file_size):
            raise _changed(path, beyond[1], file_size)
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
            try:
                with hub_failures(self.endpoint, self.repository):
                    url = hf_hub_url(
                        self.repository, path, revision=self.commit, endpoint=self.endpoint
                    )
                    ask = partial(
                        get_hf_file_metadata,
                        url,
                        token=False,
                        headers=self._proof.headers,
                        timeout=self.patience.read,
                        endpoint=self.endpoint,
                        library_name="dsollama",
                    )
                    asking = at_home(self._proof.home, ask)
                    found = within(self.patience.answer, self.cancelled, asking)
            except (HubUnreachableError, TransferError) as error:
                raise _RetryableError(str(error).rstrip(".")) from error
            except (AccessDeniedError, CertificateError, UnsafeRedirectError):
                raise
            except HubError as error:
                raise TransferError(f"The Hub does not give {path}: {error}", error.hint) from error
            self._addresses[path] = found.location
            return found.location

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = new_session()
        return session


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds that the server asks to wait (Retry-After, or the `t` of RateLimit)."""
    value = answer.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,9}", value, re.ASCII):
        return float(value)
    with suppress(ValueError, TypeError, OverflowError):
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    limit = re.search(r"\bt=(\d{1,9})\b", answer.headers.get("RateLimit", ""), re.ASCII)
    return float(limit[1]) if limit else None


def _changed(path: str, found: str, listed: int) -> TransferError:
    return TransferError(
        f"{path} has {found} bytes on the server and {listed} in the listing.",
        "The file is not the one that the Hub lists; try again later.",
    )


def _backoff(failures: int, patience: Patience) -> float:
    """Seconds before the next try: doubling from half a second, with jitter."""
    return min(2.0 ** (failures - 2), patience.wait) * random.uniform(0.5, 1.0)  # noqa: S311


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout | TimeoutError | ReadTimeoutError):
        return _STALLED
    if isinstance(error, requests.ConnectionError | ProtocolError | OSError):
        return "the connection broke"
    return f"the request failed ({type(error).__name__})"
