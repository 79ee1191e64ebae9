"""Faults of the Hub itself: the listing, who may read, and files that are not what it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from dsollama.testing.loopback_hub import Fault
from faults import wire
from faults.scene import SHARD_2, SILENCE, Scene, case, download_2, listing, resolve_2_again

HUB = "The Hub"
FILES = "What the Hub lists"
LISTED_2 = f"UD-Q2_K_XL/{SHARD_2}"


@case(HUB, "it refuses connections", exits=3, says="cannot be reached")
def hub_down(scene: Scene) -> Iterator[None]:
    scene.bench.hub.stop("hub")
    yield
    scene.bench.hub.start("hub")


@case(HUB, "it goes down after the listing", exits=3, says="failed 6 times in a row")
def hub_down_after_the_listing(scene: Scene) -> Iterator[None]:
    def stop(handler: BaseHTTPRequestHandler) -> None:
        scene.bench.hub.stop("hub")
        wire.reset(handler)

    scene.on(resolve_2_again(), stop, 1)
    yield
    scene.bench.hub.start("hub")


@case(HUB, "its name cannot be resolved", exits=3, says="cannot be reached")
def no_name(scene: Scene) -> Iterator[None]:
    scene.environment["HF_ENDPOINT"] = "http://hub.invalid"
    yield


@case(HUB, "TLS is spoken to a port without it", exits=3, says="cannot be reached")
def tls_to_a_plain_port(scene: Scene) -> Iterator[None]:
    endpoint = scene.bench.hub.endpoint
    scene.environment["HF_ENDPOINT"] = endpoint.replace("http:", "https:")
    yield


@case(HUB, "the proxy refuses connections", exits=3, says="cannot be reached")
def proxy_down(scene: Scene) -> Iterator[None]:
    scene.environment["HTTP_PROXY"] = scene.environment["http_proxy"] = "http://127.0.0.1:1"
    yield


@case(HUB, "HF_HUB_OFFLINE is set", exits=3, says="HF_HUB_OFFLINE")
def offline(scene: Scene) -> Iterator[None]:
    scene.environment["HF_HUB_OFFLINE"] = "1"
    yield


@case(HUB, "the listing is 500", exits=3, says="HTTP 500")
def listing_error(scene: Scene) -> Iterator[None]:
    scene.on(listing, Fault(status=500))
    yield


@case(HUB, "the listing is 503", exits=3, says="HTTP 503")
def listing_unavailable(scene: Scene) -> Iterator[None]:
    scene.on(listing, Fault(status=503))
    yield


@case(HUB, "the listing is 429", exits=3, says="HTTP 429")
def listing_busy(scene: Scene) -> Iterator[None]:
    scene.on(listing, Fault(status=429, headers={"Retry-After": "1"}))
    yield


@case(HUB, "the listing is a web page", exits=3, says="something that is no listing")
def listing_is_a_page(scene: Scene) -> Iterator[None]:
    scene.on(listing, Fault(status=200, body=b"<html>Log in</html>"))
    yield


@case(HUB, "the listing stalls", exits=3, says="cannot be reached")
def listing_stalls(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(listing, wire.silent)
    yield


@case(HUB, "the listing comes byte by byte", exits=3, says="takes longer than")
def listing_trickles(scene: Scene) -> Iterator[None]:
    scene.environment["DSOLLAMA_READ_TIMEOUT"] = "0.3"
    scene.on(listing, wire.trickle_listing)
    yield


@case(HUB, "the listing redirects in a circle", exits=3)
def listing_in_a_circle(scene: Scene) -> Iterator[None]:
    scene.on(listing, wire.redirect(lambda handler: handler.path))
    yield


@case(HUB, "a file's address redirects in a circle", exits=3)
def resolve_in_a_circle(scene: Scene) -> Iterator[None]:
    scene.on(resolve_2_again(), wire.redirect(lambda handler: handler.path))
    yield


@case(HUB, "a file's address is 500, once", says="try 2")
def resolve_error_once(scene: Scene) -> Iterator[None]:
    scene.on(resolve_2_again(), Fault(status=500), 1)
    yield


@case(HUB, "a file's address stalls, once", says="try 2")
def resolve_stalls_once(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(resolve_2_again(), wire.silent, 1)
    yield


@case(HUB, "a gated repository, and no token that opens it", exits=3, says="gated")
def gated(scene: Scene) -> Iterator[None]:
    scene.bench.repository.gated, scene.bench.repository.token = True, "another"
    yield
    scene.bench.repository.gated, scene.bench.repository.token = False, None


@case(HUB, "the repository becomes private in the middle", exits=3, says="does not give")
def private_in_the_middle(scene: Scene) -> Iterator[None]:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        wire.begin(handler, 401, {"X-Error-Code": "RepoNotFound", "Content-Length": "0"})

    scene.on(resolve_2_again(), refuse)
    yield


@case(HUB, "the repository becomes gated in the middle", exits=3, says="gated")
def gated_in_the_middle(scene: Scene) -> Iterator[None]:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        wire.begin(handler, 403, {"X-Error-Code": "GatedRepo", "Content-Length": "0"})

    scene.on(resolve_2_again(), refuse)
    yield


@case(HUB, "a file is deleted in the middle", exits=3, says="does not give")
def deleted_in_the_middle(scene: Scene) -> Iterator[None]:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        wire.begin(handler, 404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"})

    scene.on(resolve_2_again(), refuse)
    yield


@case(FILES, "a file became shorter after the listing", exits=3, says="bytes on the server and")
def shrank(scene: Scene) -> Iterator[None]:
    with _other_size(scene, -1000):
        yield


@case(FILES, "a file became longer after the listing", exits=3, says="bytes on the server and")
def grew(scene: Scene) -> Iterator[None]:
    with _other_size(scene, 1000):
        yield


@case(FILES, "a shard is missing", exits=4, says="missing: 2")
def missing_shard(scene: Scene) -> Iterator[None]:
    right = dict(scene.bench.repository.files)
    del scene.bench.repository.files[LISTED_2]
    yield
    scene.bench.repository.files.update(right)


@case(FILES, "a shard is a Git LFS pointer", exits=4, says="shard|Shard")
def lfs_pointer(scene: Scene) -> Iterator[None]:
    with _other_file(scene, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"):
        yield


@case(FILES, "a shard's header is damaged", exits=4, says="Shard 2 of 3")
def damaged_header(scene: Scene) -> Iterator[None]:
    data = bytearray(scene.bench.shards[1].read_bytes())
    data[8:16] = b"\xff" * 8
    with _other_file(scene, bytes(data)):
        yield


@case(FILES, "a shard is another one of the set", exits=4, says="Shard 2 of 3|shard 2")
def foreign_shard(scene: Scene) -> Iterator[None]:
    with _other_file(scene, scene.bench.shards[2].read_bytes()):
        yield


@case(FILES, "there is no such quant", exits=2, says="Q9_9")
def no_such_quant(scene: Scene) -> Iterator[None]:
    scene.arguments, right = ("install", "Q9_9", "--yes"), scene.arguments
    yield
    scene.arguments = right


@contextmanager
def _other_size(scene: Scene, by: int) -> Iterator[None]:
    """Let the CDN have a file of another size than the listed one, from the download on."""
    scene.on(download_2, wire.partial(total=by))
    yield


@contextmanager
def _other_file(scene: Scene, data: bytes) -> Iterator[None]:
    """List another file in the place of shard 2."""
    files = scene.bench.repository.files
    right = files[LISTED_2]
    other = scene.tmp / "other.gguf"
    other.write_bytes(data)
    scene.bench.repository.add(LISTED_2, other)
    yield
    files[LISTED_2] = right
