"""A bound on the answers that huggingface_hub's client reads whole into memory.

The client itself has none (huggingface_hub 2.0, httpx2): it keeps on reading for as long as a
server sends. A hook on the session that it shares wraps every body before it is read. How long an
answer may take is bounded by `waiting`.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
from huggingface_hub import get_session

MAX_ANSWER_BYTES = 8 * 2**20
"""A listing has some 300 bytes a file: this is 28,000 files. As the client's objects the worst JSON
is twenty times as large."""


class UnboundedAnswerError(httpx2.HTTPError):
    """An answer that is larger than any real one."""


def bound_answers() -> None:
    """Let huggingface_hub's shared session refuse endless bodies; may be called again."""
    session = get_session()
    session.headers["Accept-Encoding"] = "identity"
    hooks = session.event_hooks
    if _bound not in hooks["response"]:
        hooks["response"].append(_bound)
        session.event_hooks = hooks


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
