"""Manifests for an Ollama on this machine that has their blobs already.

`create` copies weights that it gets as a file: 3 times the model's size on the disk at the peak.
`pull` takes a manifest as it is and fetches only blobs that are missing. So Ollama is let pull
from a registry on loopback, which lives for that moment and has nothing but the manifests.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dsollama.limits import start_thread
from dsollama.ollama.server import Server

LOOPBACK = "127.0.0.1"
_NAMESPACE = "dsollama-handover"
_PORTS = range(1, 2**16)
MAX_SWEPT = 100
"""More names than killed runs leave; a server may list any number."""

_HANDED = re.compile(rf"127\.0\.0\.1:(\d{{1,5}})/{_NAMESPACE}/.*", re.IGNORECASE)


def hand_over(server: Server, manifests: Mapping[str, bytes]) -> None:
    """Give the server these manifests under their names; their blobs must be there.

    Args:
        server: an Ollama on this machine.
        manifests: by the name in Ollama.

    Raises:
        EngineError: the server does not reach this process (it may run in a container), does not
            answer, or refuses.
    """
    _sweep(server)
    with _registry(tuple(manifests.values())) as host:
        for index, name in enumerate(manifests):
            handed = f"{host}/{_NAMESPACE}/manifest:{index}"
            try:
                server.pull(handed)
                server.copy(handed, name)
            finally:
                if server.weights(handed) is not None:
                    server.delete(handed)


@contextmanager
def _registry(manifests: tuple[bytes, ...]) -> Iterator[str]:
    """Serve the manifests, tagged 0, 1, 2..., and yield HOST:PORT."""
    places = {
        f"/v2/{_NAMESPACE}/manifest/manifests/{index}": data for index, data in enumerate(manifests)
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            data = places.get(self.path.lower())  # Ollama may spell it as another model of its own
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as registry:
        start_thread(registry.serve_forever, 0.05)
        try:
            yield f"{LOOPBACK}:{registry.server_port}"
        finally:
            registry.shutdown()


def _sweep(server: Server) -> None:
    """Delete the names that a killed run left: they would keep the weights for ever."""
    left = [each for each in map(_HANDED.fullmatch, server.names()) if each]
    for each in left[:MAX_SWEPT]:
        if not _listens(int(each[1])):
            server.delete(each[0])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return port in _PORTS and probe.connect_ex((LOOPBACK, port)) == 0
