"""Whether an Ollama on this machine is just starting: then it prunes its store.

It takes connections before it prunes, and answers them afterwards (server.Serve of 0.33.0).
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from dsollama.ollama.address import is_this_machine

START_SECONDS = 30.0
"""How long one that says nothing is waited for. Pruning takes a moment, or as long as the disk
takes to delete a large file."""

_CONNECT_SECONDS = 1.0


def await_start(address: str) -> bool:
    """Wait until the Ollama at `address` answers, if there is one that takes connections.

    Args:
        address: from `server_address`; on another machine it is not asked.

    Returns:
        False where it still says nothing.
    """
    if not is_this_machine(address):
        return True
    parts = urlsplit(address)
    place = (parts.hostname or "", parts.port or 0)
    try:
        with socket.create_connection(place, _CONNECT_SECONDS) as connection:
            connection.sendall(f"HEAD / HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            connection.settimeout(START_SECONDS)
            try:
                connection.recv(1)
            except TimeoutError:
                return False
    except OSError:  # nobody is there: one that starts now reads the manifests of now
        pass
    return True
