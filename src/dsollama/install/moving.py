"""What both mergers share while bytes are moved: what is said, and what Ctrl-C leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsollama.errors import InterruptedByUserError
from dsollama.install.plan import InstallPlan
from dsollama.transfer.transfer import Transfer
from dsollama.units import format_bytes


def amount_of(plan: InstallPlan) -> str:
    """Return how many files and bytes are moved, in words."""
    text = f"{len(plan.shards)} shards, {format_bytes(plan.size)}"
    return f"{text}, {len(plan.local)} of them from this machine" if plan.local else text


@contextmanager
def interruptible(transfer: Transfer) -> Iterator[Transfer]:
    """Run a transfer inside the block; Ctrl-C becomes an error that says what is kept.

    Raises:
        InterruptedByUserError: Ctrl-C.
    """
    try:
        with transfer:
            yield transfer
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            f"Stopped; {format_bytes(transfer.in_place())} are kept.",
            "Run the same command again to go on from there.",
        ) from error
