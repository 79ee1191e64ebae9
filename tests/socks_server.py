"""A SOCKS 5 proxy on loopback (RFC 1928, and RFC 1929 for passwords), for one test."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_VERSION, _CONNECT = 5, 1
_NO_PASSWORD, _PASSWORD, _NONE_FITS = 0, 2, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00"
_REFUSED = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"


@dataclass
class Socks:
    """The proxy while it runs.

    Attributes:
        host: HOST:PORT of the proxy itself.
        names: the address of each name that it knows; other hosts are taken as they are.
        asked: HOST:PORT of each connection that was asked for, in order.
        users: USER:PASSWORD of each client; the empty string for one that gave none.
    """

    host: str
    names: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)


@contextmanager
def socks_proxy(user: str = "", *, refuses: bool = False) -> Iterator[Socks]:
    """Run the proxy.

    Args:
        user: USER:PASSWORD that it asks for.
        refuses: it connects to nobody.
    """

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, EOFError):
                serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    def serve(client: socket.socket) -> None:
        if not _greet(client, user, proxy):
            return
        host, port = _wanted(client)
        proxy.asked.append(f"{host}:{port}")
        if refuses:
            client.sendall(_REFUSED)
            return
        with socket.create_connection((proxy.names.get(host, host), port)) as server:
            client.sendall(_DONE)
            back = threading.Thread(target=_pass, args=(server, client), daemon=True)
            back.start()
            _pass(client, server)
            back.join()

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = Socks(f"127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield proxy
        server.shutdown()


def _greet(client: socket.socket, user: str, proxy: Socks) -> bool:
    _, count = _read(client, 2)
    methods = _read(client, count)
    wanted = _PASSWORD if user else _NO_PASSWORD
    if wanted not in methods:
        client.sendall(bytes([_VERSION, _NONE_FITS]))
        return False
    client.sendall(bytes([_VERSION, wanted]))
    said = ""
    if user:
        _, size = _read(client, 2)
        name = _read(client, size)
        said = f"{name.decode()}:{_read(client, _read(client, 1)[0]).decode()}"
        client.sendall(bytes([1, said != user]))
    proxy.users.append(said)
    return said == user


def _wanted(client: socket.socket) -> tuple[str, int]:
    _, command, _, kind = _read(client, 4)
    assert command == _CONNECT
    if kind == _NAME:
        host = _read(client, _read(client, 1)[0]).decode()
    elif kind == _IPV4:
        host = socket.inet_ntop(socket.AF_INET, _read(client, 4))
    else:
        assert kind == _IPV6
        host = socket.inet_ntop(socket.AF_INET6, _read(client, 16))
    return host, int.from_bytes(_read(client, 2), "big")


def _read(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = connection.recv(count - len(found))
        if not data:
            raise EOFError
        found += data
    return found


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
