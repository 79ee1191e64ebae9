"""Ranges of files over HTTP: a stream goes on where a connection broke, within bounds.

The bytes come through `requests`, which on this path is four times as fast as httpx
(docs/design.md) and lets a range be asked for. Where a file is, its source knows (`Locator`).
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Protocol, Self

import requests
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from dsollama import __version__
from dsollama.addresses import redirected
from dsollama.errors import TransferError, UnsafeRedirectError
from dsollama.events import Listener, Noted
from dsollama.net.sessions import new_session
from dsollama.settings import Patience, usual_patience
from dsollama.sources.source import read_all
from dsollama.sources.watch import Watch
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


class RetryableError(Exception):
    """A failure worth another try; `wait` seconds were asked for by the server, if any."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


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
            except RetryableError as error:
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

    def _wait(self, error: RetryableError) -> None:
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


Proof = Callable[[requests.PreparedRequest], requests.PreparedRequest]
"""Adds a header that says who asks, where it may."""


class Locator(Protocol):
    """Where the files of one repository at one commit are, and who may know who asks."""

    @property
    def proof(self) -> Proof | None:
        """What proves who asks; None where nobody has to."""
        ...

    def find(self, path: str, cancelled: threading.Event, patience: Patience) -> str:
        """Return the address of a file.

        Raises:
            RetryableError: it cannot be told now.
            HubError: it cannot be told at all.
        """
        ...

    def forget(self, path: str) -> None:
        """Find another address the next time: this one is no longer served."""
        ...


@dataclass
class RangeReader:
    """Reads ranges of the files of one repository at one commit; safe to share by threads.

    Attributes:
        locator: knows the files' addresses.
        listener: hears of retries, from any thread.
        patience: how long a connection may be silent, and how long to wait between tries.
    """

    locator: Locator
    listener: Listener
    patience: Patience = field(default_factory=usual_patience)

    def __post_init__(self) -> None:
        self._local = threading.local()
        self._watch = Watch(self.patience.read)
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

    def size(self, path: str) -> int:
        """Return how many bytes a file has, asked by its first byte: so it is known to be read.

        Raises:
            RetryableError: it cannot be told now.
            HubError: the server has no such file, or gives no ranges of it.
        """
        with closing(self._asked(path, 0, 1)) as answer:
            claimed = answer.headers.get("Content-Range", "")
            found = re.fullmatch(r"bytes (?:0-0|\*)/(\d{1,18})", claimed)
            if answer.status_code in {_PARTIAL, _NO_SUCH_RANGE} and found:
                return int(found[1])
            raise self._refused(path, answer)

    def request(self, path: str, start: int, end: int, file_size: int) -> requests.Response:
        """Ask for a range once and return the answer, its body unread.

        Raises:
            RetryableError: it failed in a way that may pass.
            HubError: it failed for good.
        """
        answer = self._asked(path, start, end)
        try:
            self._check(path, answer, start, end, file_size)
        except BaseException:
            answer.close()
            raise
        return answer

    def receive(self, answer: requests.Response, amount: int) -> bytes:
        """Return the next bytes of an answer's body, `amount` of them except at its end.

        Raises:
            RetryableError: the connection broke, ended early or stalled.
        """
        try:
            with self._watch.over(answer):
                data: bytes = answer.raw.read(amount)
        except (HTTPError, OSError) as error:
            reason = _STALLED if self._watch.ended(answer) else _reason(error)
            raise RetryableError(reason) from error
        if not data:
            raise RetryableError("the connection closed early")
        return data

    def _asked(self, path: str, start: int, end: int) -> requests.Response:
        try:
            return self._get(path, start, end)
        except (requests.RequestException, TimeoutError) as error:
            self._local.session = None  # an abandoned request may still be using it
            raise RetryableError(_reason(error)) from error

    def _get(self, path: str, start: int, end: int) -> requests.Response:
        """Ask the file's address for a range, or where that leads to; a few times at most."""
        address = self.locator.find(path, self.cancelled, self.patience)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get_at(address, start, end)
            if not answer.is_redirect:
                return answer
            answer.close()
            try:
                address = redirected(address, answer.headers["Location"])
            except ValueError as error:
                raise UnsafeRedirectError.of(path, error) from error
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
            auth=self.locator.proof,  # also keeps requests from adding a password of ~/.netrc
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
                raise RetryableError(f"the server sent {said}")
            if match[3] not in {"*", str(file_size)}:
                raise _changed(path, match[3], file_size)
            return
        beyond = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
        if status == _NO_SUCH_RANGE and beyond and beyond[1] != str(file_size):
            raise _changed(path, beyond[1], file_size)
        if status == _OK and (start, end) == (0, file_size):
            return
        raise self._refused(path, answer)

    def _refused(self, path: str, answer: requests.Response) -> Exception:
        status = answer.status_code
        if status in _RENEW:
            self.locator.forget(path)
            return RetryableError(f"the server answered HTTP {status}; asking for a new address")
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            return RetryableError(f"the server answered HTTP {status}", _retry_after(answer))
        return TransferError(
            f"The server answered HTTP {status} to a request for a part of {path}.",
            "The server, or a proxy before it, may not support ranges.",
        )

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
