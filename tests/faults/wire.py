"""What a server can do wrong on the wire, as answers of the loopback Hub."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Answer = Callable[[BaseHTTPRequestHandler], None]
TRICKLE_SECONDS = 0.05


def wanted(handler: BaseHTTPRequestHandler) -> tuple[Path, int, int, int]:
    """Return the file that is asked for, start and end of the range, and its size."""
    hub: Any = handler.hub  # type: ignore[attr-defined]
    owner, repo, path = unquote(urlsplit(handler.path).path).lstrip("/").split("/", 2)
    file: Path = hub.repositories[f"{owner}/{repo}"].files[path].path
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["Range"])
    assert match is not None
    return file, int(match[1]), int(match[2]) + 1, file.stat().st_size


def begin(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str]) -> None:
    """Send the head of an answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.flush()


def send(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Send a part of a body and count it."""
    handler.wfile.write(data)
    handler.hub.sent(len(data))  # type: ignore[attr-defined]


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection with a TCP reset."""
    handler.close_connection = True
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(handler.connection.detach())


def partial(
    *,
    first: int = 0,
    last: int = 0,
    total: int = 0,
    place: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Answer 206 with the right body; its claimed place is off by `first`, `last`, `total`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path, start, end, size = wanted(handler)
        said = f"bytes {start + first}-{end - 1 + last}/{size + total}"
        head = {"Content-Length": str(end - start)}
        if place is None:
            head["Content-Range"] = said
        elif place:
            head["Content-Range"] = place
        begin(handler, 206, head | dict(headers or {}))
        send(handler, _read(path, start, end))

    return answer


def reset_after(count: int) -> Answer:
    """Send `count` bytes of a right answer, then a TCP reset."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path, start, end, size = wanted(handler)
        _begin_partial(handler, start, end, size)
        send(handler, _read(path, start, start + count))
        time.sleep(0.05)  # a reset overtakes what the client has not yet read
        reset(handler)

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Send a right answer, 100 bytes at a time, for ever."""
    path, start, end, size = wanted(handler)
    _begin_partial(handler, start, end, size)
    while start < end:
        send(handler, _read(path, start, min(start + 100, end)))
        start += 100
        time.sleep(TRICKLE_SECONDS)


def trickle_head(handler: BaseHTTPRequestHandler) -> None:
    """Send the head of an answer a byte at a time, for ever."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(TRICKLE_SECONDS)


def trickle_listing(handler: BaseHTTPRequestHandler) -> None:
    """Send a listing that never ends, a byte at a time."""
    begin(handler, 200, {"Content-Type": "application/json", "Content-Length": "1000000"})
    while True:
        handler.wfile.write(b" ")
        time.sleep(TRICKLE_SECONDS)


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Say nothing until the client has gone."""
    handler.close_connection = True
    handler.connection.recv(1)


def whole(handler: BaseHTTPRequestHandler) -> None:
    """Ignore the range: 200 and the file from its beginning, cut off."""
    path, start, end, size = wanted(handler)
    handler.close_connection = True
    begin(handler, 200, {"Content-Length": str(size)})
    send(handler, _read(path, 0, min(end - start, size // 2)))


def chunked(*, short: bool) -> Answer:
    """Send the range in chunks, without a length; where `short`, not all of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path, start, end, size = wanted(handler)
        head = {"Transfer-Encoding": "chunked"}
        begin(handler, 206, head | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})
        stop = start + 1000 if short else end
        for at in range(start, stop, 2**16):
            data = _read(path, at, min(at + 2**16, stop))
            handler.wfile.write(b"%x\r\n" % len(data))
            send(handler, data)
            handler.wfile.write(b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def redirect(location: Callable[[BaseHTTPRequestHandler], str], **headers: str) -> Answer:
    """Answer 302."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found = {"Location": location(handler), "Content-Length": "0", **headers}
        begin(handler, 302, found)

    return answer


def _begin_partial(handler: BaseHTTPRequestHandler, start: int, end: int, size: int) -> None:
    handler.close_connection = True
    head = {"Content-Length": str(end - start)}
    begin(handler, 206, head | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})


def _read(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)
