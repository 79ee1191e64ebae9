"""Where the program runs: certificates, proxies, limits, folders, terminals that users have."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

import pytest
import trustme

from dsollama.testing.loopback_hub import Fault
from faults import disk
from faults.scene import Scene, case, cdn, is_root, listing
from socks_server import socks_proxy

CERTIFICATES = "Certificates"
PROXIES = "Proxies"
LIMITS = "Limits of the process"
ENVIRONMENT = "The environment"


@case(CERTIFICATES, "SSL_CERT_FILE names a file that is not there", exits=2,
      says="SSL_CERT_FILE names .*, which is not there")  # fmt: skip
def certificates_missing(scene: Scene) -> Iterator[None]:
    scene.environment["SSL_CERT_FILE"] = str(scene.tmp / "missing.pem")
    yield
    assert scene.bench.hub.requests == []


@case(CERTIFICATES, "REQUESTS_CA_BUNDLE names a file that has no certificates", exits=2,
      says="REQUESTS_CA_BUNDLE names .*, which holds no certificates")  # fmt: skip
def certificates_malformed(scene: Scene) -> Iterator[None]:
    path = scene.tmp / "empty.pem"
    path.write_text("nothing\n")
    scene.environment["REQUESTS_CA_BUNDLE"] = str(path)
    yield
    assert scene.bench.hub.requests == []


@case(CERTIFICATES, "the Hub's certificate is not trusted", exits=3,
      says="The certificate of 127.0.0.1 is not trusted")  # fmt: skip
def hub_untrusted(scene: Scene) -> Iterator[None]:
    yield from _by_https(scene, "hub")


@case(CERTIFICATES, "the CDN's certificate is not trusted", exits=3,
      says="The certificate of 127.0.0.1 is not trusted")  # fmt: skip
def cdn_untrusted(scene: Scene) -> Iterator[None]:
    yield from _by_https(scene, "cdn")


@case(CERTIFICATES, "CURL_CA_BUNDLE alone names the authority of the Hub and the CDN")
def one_variable(scene: Scene) -> Iterator[None]:
    authority = trustme.CA()
    path = scene.tmp / "ca.pem"
    authority.cert_pem.write_to_path(path)
    scene.environment["CURL_CA_BUNDLE"] = str(path)
    yield from _by_https(scene, "hub", "cdn", authority=authority)


@case(PROXIES, "ALL_PROXY names a SOCKS 5 proxy")
def socks(scene: Scene) -> Iterator[None]:
    with socks_proxy() as proxy:
        scene.environment["ALL_PROXY"] = f"socks5://{proxy.host}"
        yield
    servers = (scene.bench.hub.endpoint, scene.bench.hub.cdn)
    assert set(proxy.asked) == {address.removeprefix("http://") for address in servers}


@case(PROXIES, "the SOCKS 5 proxy refuses", exits=3, says="The Hub at .* cannot be reached")
def socks_refuses(scene: Scene) -> Iterator[None]:
    with socks_proxy(refuses=True) as proxy:
        scene.environment["ALL_PROXY"] = f"socks5://{proxy.host}"
        yield


@case(PROXIES, "ALL_PROXY names a SOCKS 5 proxy that is down, and NO_PROXY the Hub")
def socks_not_wanted(scene: Scene) -> Iterator[None]:
    scene.environment |= {"ALL_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
    yield


@case(PROXIES, "HTTP_PROXY has a port that does not exist", exits=2,
      says="HTTP_PROXY names a proxy and is no address")  # fmt: skip
def proxy_without_a_port(scene: Scene) -> Iterator[None]:
    scene.environment["HTTP_PROXY"] = "http://me:secret@127.0.0.1:99999"
    yield
    assert scene.bench.hub.requests == []


@case(PROXIES, "103 Early Hints come before every answer")
def early_hints(scene: Scene) -> Iterator[None]:
    scene.on(lambda request: listing(request) or cdn(request), Fault(early=2))
    yield


@case(LIMITS, "512 MB of addresses (`ulimit -v 524288`)")
def memory_enough(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", f"--as={512 * 2**20}"]
    yield


@case(LIMITS, "100 MB of addresses (`ulimit -v 102400`)", exits=8,
      says="The memory that this process may have is not enough")  # fmt: skip
def memory_short(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", f"--as={100 * 2**20}"]
    yield


@case(LIMITS, "32 open files, 32 connections wanted (`ulimit -n 32`)")
def files_few(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", "--nofile=32:32"]
    scene.environment["DSOLLAMA_CONNECTIONS"] = "32"
    yield


@case(LIMITS, "16 open files (`ulimit -n 16`)", exits=8, says="may have 16 files open at once")
def files_too_few(scene: Scene) -> Iterator[None]:
    scene.prefix = ["prlimit", "--nofile=16:16"]
    yield


@case(LIMITS, "12 threads, 16 connections wanted (`ulimit -u 12`)")
def threads_few(scene: Scene) -> Iterator[None]:
    _few_threads(scene, 12)
    scene.environment["DSOLLAMA_CONNECTIONS"] = "16"
    yield


@case(LIMITS, "3 threads (`ulimit -u 3`)", exits=8, says="starts no more threads or programs")
def threads_too_few(scene: Scene) -> Iterator[None]:
    _few_threads(scene, 3)
    yield


def _few_threads(scene: Scene, count: int) -> None:
    """For root, and the user who runs the tests, the limit does not hold or is another."""
    if not is_root():
        pytest.skip("only root can run a program as a user who runs nothing else")
    user = 100_000 + os.getpid() % 10_000  # the limit counts all that this user runs
    disk.give_store(scene, user)
    scene.prefix = ["prlimit", f"--nproc={count}", *scene.prefix]


def _by_https(scene: Scene, *servers: str, authority: trustme.CA | None = None) -> Iterator[None]:
    """Let servers speak TLS, with a certificate of `authority` or of one that nobody trusts."""
    hub = scene.bench.hub
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (authority or trustme.CA()).issue_cert("127.0.0.1").configure_cert(context)
    _restart(scene, context, servers)
    yield
    _restart(scene, None, servers)
    assert authority or not [each for each in hub.requests if each.server in servers]


def _restart(scene: Scene, context: ssl.SSLContext | None, servers: tuple[str, ...]) -> None:
    hub = scene.bench.hub
    hub.tls = context
    for server in servers:
        hub.stop(server)
        hub.start(server)


@case(ENVIRONMENT, "stdout is /dev/full", exits=9, says="What is printed cannot be written")
def stdout_full(scene: Scene) -> Iterator[None]:
    scene.prefix = ["sh", "-c", 'exec "$@" > /dev/full', "sh"]
    yield


@case(ENVIRONMENT, "stderr is /dev/full")
def stderr_full(scene: Scene) -> Iterator[None]:
    scene.prefix = ["sh", "-c", 'exec "$@" 2> /dev/full', "sh"]
    yield


@case(ENVIRONMENT, "stdin, stdout and stderr are closed")
def streams_closed(scene: Scene) -> Iterator[None]:
    scene.prefix = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    yield


@case(ENVIRONMENT, "no home folder: HOME names none, HF_HOME a file")
def no_home(scene: Scene) -> Iterator[None]:
    scene.environment |= {"HOME": "/nonexistent", "HF_HOME": "/etc/passwd"}
    yield


@case(ENVIRONMENT, "the terminal's encoding is ASCII (`LC_ALL=C`)")
def ascii_only(scene: Scene) -> Iterator[None]:
    scene.environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    yield


@case(ENVIRONMENT, "HF_ENDPOINT has a port that does not exist", exits=2,
      says="HF_ENDPOINT is not the address of a server")  # fmt: skip
def endpoint_without_a_port(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = "http://127.0.0.1:99999"
    yield
    assert scene.bench.hub.requests == []
