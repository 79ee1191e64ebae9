"""The helpers of other tests that could be wrong without any of those noticing."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import requests

from peak import measured
from rogue import answers_json, by_path, head, rogue, sends


@pytest.mark.parametrize("megabytes", [1, 100])
def test_the_peak_is_the_programs_own(megabytes: int, tmp_path: Path) -> None:
    _held = bytes(1) * (200 * 2**20)  # what the kernel would count for a child of this process
    program = f"held = b'x' * ({megabytes} << 20); del held; print('done')"
    done = measured([sys.executable, "-c", program], os.environ, tmp_path)
    assert (done.exit, done.out.strip()) == (0, "done")
    assert megabytes << 20 <= done.peak <= (megabytes + 60) << 20


def test_what_is_measured_ends_as_it_would(tmp_path: Path) -> None:
    assert measured(["sh", "-c", "exit 7"], os.environ, tmp_path).exit == 7
    for number in (9, 15):
        assert measured(["sh", "-c", f"kill -{number} $$"], os.environ, tmp_path).exit == -number


def test_a_rogue_answers_by_path_and_ends_while_it_sends() -> None:
    endless = sends(head(), b"x" * 1000)
    with rogue(by_path({"/json": answers_json({"a": 1})}, endless)) as server:
        assert requests.get(f"{server.address}/json", timeout=60).json() == {"a": 1}
        host, port = server.host.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"GET /endless HTTP/1.1\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert server.paths() == ["/json", "/endless"]
