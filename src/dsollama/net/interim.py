"""Answers with 1xx, such as 103 Early Hints, that come before the one that counts."""

from __future__ import annotations

from http.client import HTTPResponse

from dsollama.errors import TransferError

MAX_INTERIM = 32
"""Such answers before the one that counts; a server sends one or two."""

_SWITCHING = 101


class FinalResponse(HTTPResponse):
    """The answer that counts. http.client itself passes over 100 alone."""

    def begin(self) -> None:
        """Read the head of the answer that counts.

        Raises:
            TransferError: none comes.
        """
        for _ in range(MAX_INTERIM):
            super().begin()
            if self.status == _SWITCHING or not 100 <= self.status < 200:  # noqa: PLR2004
                return
            self.headers = self.msg = None  # type: ignore[assignment] # or nothing more is read
        raise TransferError("The server answers without an end, and says nothing (HTTP 1xx).")
