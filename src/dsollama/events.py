"""What long work reports while it runs; the terminal, plain lines, JSON and tests listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStarted:
    """A named step of the work begins (`plan`, `download`, `merge`, `register`...)."""

    step: str
    detail: str = ""


@dataclass(frozen=True)
class BytesMoved:
    """How far a transfer is; sent a few times a second at most.

    Attributes:
        step: the step it belongs to.
        done: bytes of the total that are in place, those of an earlier run included.
        total: bytes in all.
        resumed: bytes taken over from an earlier run (not moved now).
        shard: number of the shard being filled, from 1.
        shards: how many shards there are.
    """

    step: str
    done: int
    total: int
    resumed: int
    shard: int
    shards: int


@dataclass(frozen=True)
class ShardVerified:
    """A shard is complete.

    Attributes:
        shard: its number, from 1.
        shards: how many there are.
        sha256: the digest of its bytes, in hex.
        published: whether that is the digest that the Hub published; else none is published.
    """

    shard: int
    shards: int
    sha256: str
    published: bool = True


@dataclass(frozen=True)
class Noted:
    """One sentence that the user should see, such as a retry and its reason."""

    text: str


Event = StepStarted | BytesMoved | ShardVerified | Noted
Listener = Callable[[Event], None]
