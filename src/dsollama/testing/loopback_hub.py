"""A Hub on loopback that speaks enough of Hugging Face's wire for the real clients.

Two servers: the Hub (listing, `resolve`, which answers LFS files with a redirect) and a CDN on a
port of its own (ranges, signed addresses). Tests make it fail by overriding `Cdn.fault`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

_NUMBERS = {"hub": 0, "cdn": 1}
COMMIT = hashlib.sha1(b"dsollama demo", usedforsecurity=False).hexdigest()


@dataclass
class HubFile:
    """A file that is served: where it lies, what the listing says of it."""

    path: Path
    size: int
    sha256: str
    lfs: bool = True


@dataclass
class HubRepository:
    """A repository: its files by path, who may read it, and what its older commits held."""

    files: dict[str, HubFile] = field(default_factory=dict)
    commit: str = COMMIT
    older: dict[str, HubRepository] = field(default_factory=dict)
    gated: bool = False
    token: str | None = None

    def add(self, name: str, path: Path, *, sha256: str | None = None, lfs: bool = True) -> None:
        """Serve the file at `path` as `name`; its digest is computed unless given."""
        digest = sha256 or _digest(path)
        self.files[name] = HubFile(path, path.stat().st_size, digest, lfs)


@dataclass(frozen=True)
class Request:
    """A request as it came in, for tests to look at."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """What the CDN does instead of answering rightly.

    Attributes:
        status: answer with this status and `body`; 0 answers as usual otherwise.
        body: the body for `status`.
        headers: added to the answer.
        cut_after: close the connection after this many bytes of the body.
        stall_after: send nothing more after this many bytes, until the client gives up.
        damage: change this byte of every body.
        early: answers with 103 Early Hints before the one that counts.
        answer: answers instead, on either server, with the handler at hand.
    """

    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    damage: int | None = None
    early: int = 0
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None


class LoopbackHub:
    """The two servers; use as a context manager."""

    def __init__(
        self, repositories: Mapping[str, HubRepository], tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve `repositories` by OWNER/REPO once entered, by https where `tls` is given."""
        self.repositories = dict(repositories)
        self.tls = tls
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda _request: None
        self.bytes_sent = 0
        self._lock = threading.Lock()
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> Self:
        """Listen on two free ports of 127.0.0.1."""
        self._servers = [self._serve(handler, 0) for handler in (_Hub, _Cdn)]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop both servers."""
        for handler in (_Hub, _Cdn):
            self.stop(handler.server_name)

    def stop(self, name: str) -> None:
        """Let the server `hub` or `cdn` refuse connections."""
        server = self._servers[_NUMBERS[name]]
        server.shutdown()
        server.server_close()

    def start(self, name: str) -> None:
        """Let a stopped server listen again, on the same port."""
        number = _NUMBERS[name]
        port = self._servers[number].server_address[1]
        self._servers[number] = self._serve((_Hub, _Cdn)[number], port)

    def _serve(self, handler: type[_Handler], port: int) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", port), partial(handler, self))
        if self.tls:  # a handshake is the thread's that answers
            server.socket = self.tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def endpoint(self) -> str:
        """Address for HF_ENDPOINT."""
        return self._address(0)

    @property
    def cdn(self) -> str:
        """Address of the CDN."""
        return self._address(1)

    def _address(self, number: int) -> str:
        server = self._servers[number]
        scheme = "https" if isinstance(server.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{server.server_address[1]}"

    def seen(self, request: Request) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(request)

    def sent(self, count: int) -> None:
        """Count bytes of bodies."""
        with self._lock:
            self.bytes_sent += count


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away; anything else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body in its own packet would wait 40 ms for an ACK
    server_name = ""

    def __init__(self, hub: LoopbackHub, *rest: Any) -> None:
        self.hub = hub
        super().__init__(*rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay silent."""

    def _request(self) -> Request:
        request = Request(self.server_name, self.command, self.path, dict(self.headers.items()))
        self.hub.seen(request)
        return request

    def _hint_early(self, fault: Fault | None) -> None:
        for _ in range(fault.early if fault else 0):
            self.send_response_only(103)
            self.send_header("Link", "</style.css>; rel=preload; as=style")
            self.end_headers()

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Hub(_Handler):
    server_name = "hub"

    def do_GET(self) -> None:
        """Answer a listing or a resolve."""
        request = self._request()
        fault = self.hub.fault(request)
        if fault and fault.answer:
            fault.answer(self)
            return
        if fault and fault.status:
            self._answer(fault.status, fault.body, fault.headers)
            return
        self._hint_early(fault)
        path = unquote(urlsplit(self.path).path)
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if path == "/api/agent-harnesses":  # huggingface_hub asks once a day
            self._answer_json({"standardEnvVars": [], "harnesses": {}})
        elif listing:
            repository = self._open(listing[1], listing[2])
            if repository:
                self._answer_json(_listing(listing[1], repository))
        elif tree:
            repository = self._open(tree[1], tree[2])
            if repository:
                self._answer_json(_tree(repository))
        elif resolve:
            repository = self._open(resolve[1], resolve[2])
            if repository:
                self._resolve(resolve[1], repository, resolve[3])
        else:
            self._answer(404)

    def do_HEAD(self) -> None:
        """Answer as GET, without the body."""
        self.do_GET()

    def _answer_json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _open(self, name: str, revision: str | None) -> HubRepository | None:
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (
            repository.token and token != repository.token and not repository.gated
        ):
            self._answer(401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        if repository.gated and token != repository.token:
            self._answer(403, headers={"X-Error-Code": "GatedRepo"})
            return None
        if revision in {None, "main", repository.commit}:
            return repository
        if revision in repository.older:
            return repository.older[revision]
        self._answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        return None

    def _resolve(self, name: str, repository: HubRepository, path: str) -> None:
        file = repository.files.get(path)
        if file is None:
            self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        query = f"signature=1&commit={repository.commit}"
        headers = {
            "X-Repo-Commit": repository.commit,
            "X-Linked-Size": str(file.size),
            "X-Linked-ETag": f'"{file.sha256}"',
            "Location": f"{self.hub.cdn}/{name}/{quote(path)}?{query}",
        }
        self._answer(302, headers=headers)


class _Cdn(_Handler):
    server_name = "cdn"

    def do_GET(self) -> None:
        """Answer with a file, or the range that is asked for."""
        fault = self.hub.fault(self._request()) or Fault()
        if fault.answer:
            fault.answer(self)
            return
        if fault.status:
            self._answer(fault.status, fault.body, fault.headers)
            return
        self._hint_early(fault)
        parts = urlsplit(self.path)
        owner, repo, path = unquote(parts.path).lstrip("/").split("/", 2)
        query = parse_qs(parts.query)
        if "signature" not in query:
            self._answer(403)
            return
        repository = self.hub.repositories[f"{owner}/{repo}"]
        repository = repository.older.get(query["commit"][0], repository)
        file = repository.files[path]
        size = file.path.stat().st_size
        start, end, ranged = _range(self.headers.get("Range"), size)
        if start >= size:
            self._answer(416, headers={"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self._send(file.path, start, end, fault)

    def _send(self, path: Path, start: int, end: int, fault: Fault) -> None:
        limit = fault.cut_after if fault.cut_after is not None else fault.stall_after
        stop = end if limit is None else min(end, start + limit)
        self.wfile.flush()
        with path.open("rb") as file:
            if fault.damage is not None:
                file.seek(start)
                data = bytearray(file.read(stop - start))
                if fault.damage < len(data):
                    data[fault.damage] ^= 0xFF
                self.wfile.write(data)
                self.hub.sent(len(data))
                return
            while start < stop:
                try:
                    count = self._send_some(file, start, stop - start)
                except OSError:
                    return
                start += count
                self.hub.sent(count)
        if fault.stall_after is not None and stop < end:
            self.connection.recv(1)
        if stop < end:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_some(self, file: BinaryIO, start: int, count: int) -> int:
        if isinstance(self.connection, ssl.SSLSocket):
            sent: int = self.connection.sendfile(file, start, min(count, 2**20))
            return sent
        return os.sendfile(self.connection.fileno(), file.fileno(), start, count)


def _listing(name: str, repository: HubRepository) -> dict[str, object]:
    siblings = []
    for path, file in repository.files.items():
        entry: dict[str, object] = {"rfilename": path, "size": file.size, "blobId": "0" * 40}
        if file.lfs:
            entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 135}
        siblings.append(entry)
    return {
        "_id": "0", "id": name, "modelId": name, "sha": repository.commit, "siblings": siblings,
        "private": False, "gated": repository.gated, "disabled": False, "downloads": 0,
        "likes": 0, "tags": ["gguf"],
    }  # fmt: skip


def _tree(repository: HubRepository) -> list[dict[str, object]]:
    return [
        {
            "type": "file",
            "path": path,
            "size": file.size,
            "oid": "0" * 40,
            "lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 135},
        }
        for path, file in repository.files.items()
    ]


def _range(value: str | None, size: int) -> tuple[int, int, bool]:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", value or "")
    if not match:
        return 0, size, False
    end = int(match[2]) + 1 if match[2] else size
    return int(match[1]), min(end, size), True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
