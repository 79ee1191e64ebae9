"""What huggingface_hub's client may send where: hooks on the session that it shares.

It follows redirects by rules of its own: with the token to each of a list of hosts, or from http to
https of a host, and also from https to http. The hooks see every request before it is sent, with
the very address that it goes to, and every answer before its redirect is followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import httpx2

from dsollama.addresses import Origin, origin, redirected
from dsollama.errors import UnsafeRedirectError

T = TypeVar("T")
_WARNING = "X-HF-Warning"
_HOME: ContextVar[Origin | None] = ContextVar("_HOME", default=None)


def at_home(home: Origin | None, ask: Callable[[], T]) -> Callable[[], T]:
    """Return `ask`, whose requests take their Authorization to `home` alone."""

    def asking() -> T:
        with _only(home):
            return ask()

    return asking


def keep_authorization(request: httpx2.Request) -> None:
    """Take the Authorization from a request that does not go home."""
    home = _HOME.get()
    try:
        there = origin(str(request.url))
    except ValueError:
        there = None
    if home is not None and there != home:
        request.headers.pop("Authorization", None)


def check_redirect(response: httpx2.Response) -> None:
    """Refuse a redirect that is not followed (`addresses.redirected`).

    Raises:
        UnsafeRedirectError: with the reason.
    """
    if response.has_redirect_location:
        asked = response.request.url
        try:
            redirected(str(asked), response.headers["Location"])
        except ValueError as error:
            raise UnsafeRedirectError.of(asked.path, error) from error


def drop_unprintable_warning(response: httpx2.Response) -> None:
    """Drop a server's warning that huggingface_hub would print with its control characters."""
    if not all(each.isprintable() for each in response.headers.get_list(_WARNING)):
        del response.headers[_WARNING]


@contextmanager
def _only(home: Origin | None) -> Iterator[None]:
    before = _HOME.set(home)
    try:
        yield
    finally:
        _HOME.reset(before)
