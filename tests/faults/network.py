"""Faults of the network and of the servers behind it, in the middle of a download."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from dsollama.testing.loopback_hub import Fault, Request
from faults import wire
from faults.scene import (
    SILENCE,
    Scene,
    case,
    cdn,
    download_2,
    download_3,
    resolve_2,
    resolve_2_again,
)

CONNECTION = "Connections"
ANSWERS = "Answers of the CDN"
AGAIN = r"the connection broke; try 2"
GIVEN_UP = r"failed 6 times in a row: "
STALLED = "the connection stalled"


@case(CONNECTION, "TCP reset in mid-body, once", says=AGAIN)
def reset_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.reset_after(2_000_000), 1)
    yield


@case(CONNECTION, "TCP reset in mid-body, always", exits=3, says=GIVEN_UP + "the connection broke")
def reset_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.reset_after(20_000))
    yield


@case(CONNECTION, "TCP reset before the answer, once", says=AGAIN)
def reset_at_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.reset, 1)
    yield


@case(CONNECTION, "the body ends early, once", says=AGAIN)
def cut_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(cut_after=2_000_000), 1)
    yield


@case(CONNECTION, "the body ends after 1,000 bytes, always", exits=3, says=GIVEN_UP)
def cut_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(cut_after=1000))
    yield


@case(CONNECTION, "no byte comes any more, once", says=STALLED + "; try 2")
def stalled_once(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(download_2, Fault(stall_after=1_000_000), 1)
    yield


@case(CONNECTION, "no byte comes any more, always", exits=3, says=GIVEN_UP + STALLED)
def stalled_always(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(download_2, Fault(stall_after=0))
    yield


@case(CONNECTION, "2 kB/s, once (slow loris)", says=STALLED + "; try 2")
def trickle_once(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(download_2, wire.trickle, 1)
    yield


@case(CONNECTION, "2 kB/s, always", exits=3, says=GIVEN_UP + STALLED)
def trickle_always(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(download_2, wire.trickle)
    yield


@case(CONNECTION, "the head of an answer comes byte by byte, once", says="try 2")
def trickled_head_once(scene: Scene) -> Iterator[None]:
    scene.environment |= SILENCE
    scene.on(download_2, wire.trickle_head, 1)
    yield


@case(CONNECTION, "the CDN refuses connections, for a second", says="try 2")
def refused_for_a_second(scene: Scene) -> Iterator[None]:
    scene.environment["DSOLLAMA_MAX_WAIT"] = "1"
    hub = scene.bench.hub

    def stop(handler: BaseHTTPRequestHandler) -> None:
        hub.stop("cdn")
        timer = threading.Timer(1.0, hub.start, ["cdn"])
        timer.start()
        scene.stack.callback(timer.join)
        wire.reset(handler)

    scene.on(download_2, stop, 1)
    yield


@case(CONNECTION, "the CDN refuses connections, from then on", exits=3, says=GIVEN_UP)
def refused_always(scene: Scene) -> Iterator[None]:
    def stop(handler: BaseHTTPRequestHandler) -> None:
        scene.bench.hub.stop("cdn")
        wire.reset(handler)

    scene.on(download_2, stop, 1)
    yield
    scene.bench.hub.start("cdn")


@case(CONNECTION, "the CDN's name cannot be resolved", exits=3, says=GIVEN_UP)
def cdn_without_a_name(scene: Scene) -> Iterator[None]:
    scene.on(resolve_2_again(), _to("http://cdn.invalid/file"))
    yield


@case(ANSWERS, "200 and the whole file instead of the range", exits=3, says="HTTP 200")
def whole_file(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.whole)
    yield


@case(ANSWERS, "200 and a login page", exits=3, says="HTTP 200")
def login_page(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=200, body=b"<html>Log in</html>"))
    yield


@case(ANSWERS, "a range that begins elsewhere, once", says="sent the range")
def shifted_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.partial(first=1), 1)
    yield


@case(ANSWERS, "a range that begins elsewhere, always", exits=3, says=GIVEN_UP)
def shifted_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.partial(first=1))
    yield


@case(ANSWERS, "a range that ends elsewhere", exits=3, says=GIVEN_UP)
def other_end(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.partial(last=-1))
    yield


@case(ANSWERS, "a range without Content-Range", exits=3, says="without its place")
def no_place(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.partial(place=""))
    yield


@case(ANSWERS, "416, the file ends before the range", exits=3, says="bytes on the server and")
def beyond_the_end(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=416, headers={"Content-Range": "bytes */1000"}))
    yield


@case(ANSWERS, "416 without a reason", exits=3, says="HTTP 416")
def no_such_range(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=416))
    yield


@case(ANSWERS, "429 with Retry-After in seconds, once", says="HTTP 429; try 2 in 1.0 s")
def busy_for_a_second(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=429, headers={"Retry-After": "1"}), 1)
    yield


@case(ANSWERS, "429 with Retry-After as a date, once", says="HTTP 429; try 2 in 1.0 s")
def busy_until_a_date(scene: Scene) -> Iterator[None]:
    # A minute from now, of which the test's patience waits a second.
    scene.on(
        download_2,
        Fault(status=429, headers={"Retry-After": formatdate(time.time() + 60, usegmt=True)}),
        1,
    )
    yield


@case(ANSWERS, "429 with RateLimit, once", says="HTTP 429; try 2 in 1.0 s")
def rate_limited(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=429, headers={"RateLimit": '"api";r=0;t=1'}), 1)
    yield


@case(ANSWERS, "429, always", exits=3, says=GIVEN_UP + "the server answered HTTP 429")
def busy_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=429))
    yield


@case(ANSWERS, "500, once", says="HTTP 500; try 2")
def error_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=500, body=b"Traceback"), 1)
    yield


@case(ANSWERS, "502, five times", says="HTTP 502; try 6")
def bad_gateway_five_times(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=502), 5)
    yield


@case(ANSWERS, "503, always", exits=3, says=GIVEN_UP + "the server answered HTTP 503")
def unavailable_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=503))
    yield


@case(ANSWERS, "403, the signed address has expired, once", says="asking for a new address")
def expired_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=403), 1)
    yield
    asked = [each for each in scene.bench.hub.requests if resolve_2(each)]
    assert len(asked) > 2, "the address was not asked for again"


@case(ANSWERS, "403, always", exits=3, says=GIVEN_UP + "the server answered HTTP 403")
def expired_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=403))
    yield


@case(ANSWERS, "404, always", exits=3, says=GIVEN_UP + "the server answered HTTP 404")
def not_found_always(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(status=404))
    yield


@case(ANSWERS, "a redirect to another host; the token stays behind")
def redirected_once_more(scene: Scene) -> Iterator[None]:
    def elsewhere(handler: BaseHTTPRequestHandler) -> str:
        return scene.bench.hub.cdn.replace("127.0.0.1", "localhost") + handler.path

    def from_here(request: Request) -> bool:
        return cdn(request) and "127.0.0.1" in request.headers["Host"]

    scene.on(from_here, wire.redirect(elsewhere))
    yield
    hosts = {each.headers["Host"].split(":")[0] for each in scene.bench.hub.requests if cdn(each)}
    assert hosts == {"127.0.0.1", "localhost"}


@case(ANSWERS, "a redirect in a circle", exits=3, says="more than 5 times")
def redirected_in_a_circle(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.redirect(lambda handler: handler.path))
    yield


@case(ANSWERS, "a redirect to a file of this machine", exits=3, says="not safe")
def redirected_to_a_file(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.redirect(lambda _handler: "file:///etc/passwd"))
    yield


@case(ANSWERS, "a redirect to no address at all", exits=3, says="not safe")
def redirected_to_nonsense(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.redirect(lambda _handler: "http://[::1"))
    yield


@case(ANSWERS, "other bytes of the right size, once", says="fetching this shard again")
def damaged_once(scene: Scene) -> Iterator[None]:
    scene.on(download_2, Fault(damage=5), 1)
    yield


@case(ANSWERS, "other bytes of the right size, always", exits=4, says="Shard 2 of 3")
def damaged_always(scene: Scene) -> Iterator[None]:
    def late(handler: BaseHTTPRequestHandler) -> None:
        """So much of the shard behind the damaged one comes before that is given up."""
        time.sleep(0.4)
        wire.partial()(handler)

    scene.on(download_2, Fault(damage=5))
    scene.on(download_3, late)
    yield


@case(ANSWERS, "other bytes in the last shard, always", exits=4, says="Shard 3 of 3")
def damaged_last(scene: Scene) -> Iterator[None]:
    scene.on(download_3, Fault(damage=5))
    yield


@case(ANSWERS, "a body that is compressed (gzip)", exits=3, says="compressed")
def compressed(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.partial(headers={"Content-Encoding": "gzip"}))
    yield


@case(ANSWERS, "chunks without a length")
def chunks(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.chunked(short=False))
    yield


@case(ANSWERS, "chunks that end early, always", exits=3, says=GIVEN_UP)
def short_chunks(scene: Scene) -> Iterator[None]:
    scene.on(download_2, wire.chunked(short=True))
    yield


def _to(address: str) -> wire.Answer:
    head = {"X-Repo-Commit": "0" * 40, "X-Linked-Size": "1", "X-Linked-ETag": '"0"'}
    return wire.redirect(lambda _handler: address, **head)
