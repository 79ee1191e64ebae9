"""Files into an Ollama over its API: its blobs.

The API has no partial upload: one that breaks begins again. So a server that takes nothing for a
while is waited for. It is asked first whether it has the blob: what arrived whole is never sent
twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dsollama.errors import OllamaUnreachableError, StoreError
from dsollama.events import BytesMoved, Listener, Noted
from dsollama.ollama.answers import Body, Limits, Question, asked
from dsollama.ollama.server import Server
from dsollama.settings import Patience
from dsollama.units import format_duration

BLOCK_BYTES = 2**20
ATTEMPTS = 5
PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""

REPORT_SECONDS = 0.2
FIRST_NOTE_SECONDS = 5.0
"""So long a server takes nothing before that is said; again after each further minute."""

NOTE_SECONDS = 60.0
_NOT_FOUND = 404


class Blobs(Server):
    """The server at an address, which takes files."""

    def __init__(
        self, address: str, pause: float = PAUSE_SECONDS, patience: Patience | None = None
    ) -> None:
        """Ask nothing yet.

        Args:
            address: from `server_address`, which has no password in it.
            pause: seconds before a second attempt.
            patience: as for `Server`.
        """
        super().__init__(address, patience)
        self._pause = pause

    def has(self, digest: str) -> bool:
        """Whether the server has the blob `sha256:HEX`.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        wanted = Question("HEAD", f"/api/blobs/{digest}")
        answer = asked(self.peer, wanted, Limits(self.patience.server))
        if answer.status == _NOT_FOUND:
            return False
        if not answer.ok:
            raise self.refused(answer.status, "")
        return True

    def upload(self, digest: str, file: Path, listener: Listener) -> int:
        """Send a file unless the server has it; return the bytes that were sent.

        Args:
            digest: `sha256:HEX` of the file, which the server compares.
            file: read from its start on every attempt.
            listener: hears of progress and retries.

        Raises:
            NotEnoughDiskError: the server says that its disk is full.
            EngineError: it refuses, takes nothing for too long, or the upload broke ATTEMPTS times.
            StoreError: the file cannot be read.
        """
        sent = 0
        for attempt in range(1, ATTEMPTS + 1):
            body = _Body(file, listener)
            try:
                if not self.has(digest):
                    self._send(digest, body, _Waiting(listener, self.patience.receiver))
                return sent + body.sent
            except OllamaUnreachableError as error:
                sent += body.sent
                if attempt == ATTEMPTS:
                    raise OllamaUnreachableError(
                        f"The upload to {self.address} broke off {ATTEMPTS} times.",
                        "The merged file is kept: run the same command again. The server's disk "
                        "may be full; its log has more.",
                    ) from error
            listener(
                Noted(
                    "The upload broke off; it begins again, because Ollama's API cannot go on in "
                    f"the middle (retry {attempt} of {ATTEMPTS - 1})."
                )
            )
            time.sleep(self._pause * 2 ** (attempt - 1))
        raise AssertionError  # the last attempt returns or raises

    def put(self, digest: str, data: bytes) -> None:
        """Send a small blob unless the server has it.

        Raises:
            NotEnoughDiskError: the server says that its disk is full.
            EngineError: it does not answer, or refuses.
        """
        if not self.has(digest):
            self._send(digest, data)

    def _send(
        self,
        digest: str,
        body: Body | bytes,
        waits: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        long = self.patience.receiver
        wanted = Question("POST", f"/api/blobs/{digest}", body, patience=long, waits=waits)
        answer = asked(self.peer, wanted, Limits(long))
        if not answer.ok:
            raise self.refused(answer.status, self.words(answer.body))


class _Waiting:
    """Says that the server takes nothing, and that it goes on."""

    def __init__(self, listener: Listener, most: float) -> None:
        self._listener = listener
        self._most = most
        self._next = FIRST_NOTE_SECONDS

    def __call__(self, seconds: float) -> None:
        if seconds >= self._next:
            self._next = seconds + NOTE_SECONDS
            waited, most = format_duration(seconds), format_duration(self._most)
            said = f"The server has taken nothing for {waited}; the upload waits up to {most}."
            self._listener(Noted(said))
        elif not seconds and self._next != FIRST_NOTE_SECONDS:
            self._next = FIRST_NOTE_SECONDS
            self._listener(Noted("The upload goes on."))


class _Body:
    """The body of an upload: blocks of a file, with a length, so that it is not sent chunked."""

    def __init__(self, file: Path, listener: Listener) -> None:
        self.sent = 0
        self._file = file
        self._listener = listener
        try:
            self._size = file.stat().st_size
        except OSError as error:
            raise _unreadable(file, error) from error

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        reported = 0.0
        try:
            with self._file.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
                    self.sent += len(block)
                    now = time.monotonic()
                    if now - reported >= REPORT_SECONDS or self.sent == self._size:
                        reported = now
                        self._listener(BytesMoved("upload", self.sent, self._size, 0, 1, 1))
        except OSError as error:
            raise _unreadable(self._file, error) from error


def _unreadable(file: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{file} cannot be read: {error.strerror or error}.", "Run the same command again."
    )
