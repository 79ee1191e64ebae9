"""huggingface_hub's client as dsollama wants it: its way to servers, and a bound on its answers.

The client itself has no bound (huggingface_hub 2.0, httpx2): it keeps on reading for as long as a
server sends. A hook on the session that it shares wraps every body before it is read. How long an
answer may take is bounded by `waiting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import httpx2
from huggingface_hub import is_offline_mode, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled

from dsollama.net.httpx_transport import Transport
from dsollama.sources.hub.guard import check_redirect, drop_unprintable_warning, keep_authorization

MAX_ANSWER_BYTES = 8 * 2**20
"""A listing has some 300 bytes a file: this is 28,000 files. As the client's objects the worst JSON
is twenty times as large."""


class UnboundedAnswerError(httpx2.HTTPError):
    """An answer that is larger than any real one."""


@cache
def use_own_client() -> None:
    """Let huggingface_hub take clients with these bounds from now on; may be called again."""
    set_client_factory(_client)


def _client() -> httpx2.Client:
    """Return what huggingface_hub's own factory does, on our transport and with the bounds."""
    return httpx2.Client(
        transport=Transport(),
        headers={"Accept-Encoding": "identity"},
        event_hooks={
            "request": [_unless_offline, keep_authorization],
            "response": [check_redirect, drop_unprintable_warning, _bound],
        },
        follow_redirects=True,
        timeout=None,
    )


def _unless_offline(request: httpx2.Request) -> None:
    if is_offline_mode():
        msg = f"{request.url.host} is not asked"
        raise OfflineModeIsEnabled(msg)


def _bound(response: httpx2.Response) -> None:
    coding = response.headers.get("Content-Encoding", "identity")
    if response.request.method != "HEAD" and coding != "identity":
        # A compressed body may be a thousand times as large as what is counted here.
        msg = "it compresses its answer, which was not asked for"
        raise UnboundedAnswerError(msg)
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                msg = f"its answer is larger than {MAX_ANSWER_BYTES} bytes"
                raise UnboundedAnswerError(msg)
            yield chunk

    def close(self) -> None:
        self._stream.close()
