"""One variable is enough for every client; a certificate that is not trusted is told as one."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from dsollama.errors import CertificateError, UsageError
from dsollama.net.tls import tls_context
from dsollama.ollama.client import connect, ollama_failures
from dsollama.ollama.names import listed_names
from dsollama.ollama.server import Server
from dsollama.testing.loopback_hub import LoopbackHub

from .conftest import dsollama
from conftest import CERTIFICATES

INSTALL = ("install", "UD-Q2_K_XL", "--yes")
FILES = [name for name in CERTIFICATES if name != "SSL_CERT_DIR"]


def _hashed(authority_file: Path, folder: Path) -> Path:
    """Make a folder as `openssl rehash` does."""
    program = shutil.which("openssl")
    if not program:
        pytest.skip("the program openssl, which names the files of SSL_CERT_DIR, is not installed")
    command = [program, "x509", "-hash", "-noout", "-in", authority_file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    folder.mkdir()
    shutil.copy(authority_file, folder / f"{done.stdout.strip()}.0")
    return folder


def _installs(hub: LoopbackHub, tmp_path: Path, **environment: str) -> None:
    environment |= {"HF_ENDPOINT": hub.endpoint, "OLLAMA_MODELS": str(tmp_path / "models")}
    done = dsollama(*INSTALL, **environment)
    assert done.returncode == 0, done.stderr
    assert {request.server for request in hub.requests} == {"hub", "cdn"}


@pytest.mark.parametrize("variable", FILES)
def test_one_variable_is_enough_for_listing_and_bytes(
    variable: str, https_hub: LoopbackHub, authority_file: Path, tmp_path: Path
) -> None:
    _installs(https_hub, tmp_path, **{variable: str(authority_file)})


def test_one_folder_of_several_is_enough(
    https_hub: LoopbackHub, authority_file: Path, tmp_path: Path
) -> None:
    folder = _hashed(authority_file, tmp_path / "certificates")
    _installs(https_hub, tmp_path, SSL_CERT_DIR=f"{tmp_path}/missing:{folder}")


def test_the_system_s_certificates_count(
    https_hub: LoopbackHub, authority_file: Path, tmp_path: Path
) -> None:
    """In a namespace of its own, in which this is the only certificate that the system has."""
    folder = _hashed(authority_file, tmp_path / "certificates")
    where = Path(ssl.get_default_verify_paths().openssl_capath)
    if os.geteuid() != 0 or not where.is_dir():
        pytest.skip("only root can give a process other certificates of the system")
    environment = {"HF_ENDPOINT": https_hub.endpoint, "OLLAMA_MODELS": str(tmp_path / "models")}
    script = f'mount --bind {folder} {where.resolve()} && exec "$@"'
    command = [sys.executable, "-m", "dsollama", *INSTALL]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"mount namespaces are not allowed here: {done.stderr}")
    assert done.returncode == 0, done.stderr


def test_all_that_are_named_count_together(
    authority: trustme.CA, authority_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority_file))
    assert tls_context().cert_store_stats()["x509_ca"] == 2


def test_certifi_s_count_too_where_none_is_named() -> None:
    assert tls_context().cert_store_stats()["x509_ca"] > 50


def test_the_hub_s_certificate_is_told_at_once(https_hub: LoopbackHub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": https_hub.endpoint, "OLLAMA_MODELS": str(tmp_path / "models")}
    done = dsollama(*INSTALL, **environment)
    assert done.returncode == 3
    assert "\nError: The certificate of 127.0.0.1 is not trusted: " in done.stderr
    assert "Hint: " in done.stderr
    assert "SSL_CERT_FILE" in done.stderr
    assert https_hub.requests == []


def test_the_cdn_s_certificate_is_told_at_once(
    https_hub: LoopbackHub, authority_file: Path, tmp_path: Path
) -> None:
    """The Hub is trusted, and the server that has the bytes has a certificate of another CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    https_hub.stop("cdn")
    https_hub.tls = context
    https_hub.start("cdn")
    environment = {"HF_ENDPOINT": https_hub.endpoint, "OLLAMA_MODELS": str(tmp_path / "models")}
    done = dsollama(*INSTALL, "--json", SSL_CERT_FILE=str(authority_file), **environment)
    assert done.returncode == 3
    assert '"code": "certificate"' in done.stdout
    assert "try 2" not in done.stdout + done.stderr


@contextmanager
def _https_ollama(context: ssl.SSLContext) -> Iterator[str]:
    """A server by https that lists no models, in Ollama's words (Ollama itself speaks no TLS)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"models": [], "version": "0.33.0"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Silent(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    with Silent(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("variable", FILES)
def test_one_variable_is_enough_for_an_ollama_by_https(
    variable: str,
    authority_file: Path,
    server_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, str(authority_file))
    with _https_ollama(server_context) as address:
        assert Server(address).version() == "0.33.0"
        assert listed_names(address) == set()
        assert connect(address).list().models == []


def test_an_ollama_s_certificate_is_told(server_context: ssl.SSLContext) -> None:
    with _https_ollama(server_context) as address:
        with pytest.raises(CertificateError, match=r"certificate of .*127.0.0.1.* is not trusted"):
            Server(address).version()
        with pytest.raises(CertificateError), ollama_failures(address):
            connect(address).list()
        with pytest.raises(CertificateError):  # a note, where an install has ended well
            listed_names(address)


@pytest.mark.parametrize("variable", CERTIFICATES)
def test_a_variable_that_names_nothing_is_told(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "missing"))
    with pytest.raises(UsageError, match=rf"^{variable} names .*/missing, which is not there\.$"):
        tls_context()


@pytest.mark.parametrize("content", [b"", b"not PEM", b"\x30\x82\x03\xff", b"-----BEGIN\xff"])
def test_a_file_without_certificates_is_told(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .* no certificates in PEM form"):
        tls_context()


def test_the_program_tells_a_missing_file_before_it_asks(
    https_hub: LoopbackHub, tmp_path: Path
) -> None:
    environment = {"HF_ENDPOINT": https_hub.endpoint, "OLLAMA_MODELS": str(tmp_path / "models")}
    done = dsollama(*INSTALL, SSL_CERT_FILE=str(tmp_path / "missing"), **environment)
    assert done.returncode == 2
    assert "\nError: SSL_CERT_FILE names " in done.stderr
    assert https_hub.requests == []


def test_chat_with_an_ollama_by_http_needs_no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/missing")
    connect("http://127.0.0.1:1")
