"""A registration that was killed between two names: told, and finished."""

from __future__ import annotations

from dsollama.store.registering import pending
from dsollama.store.store import Store


def hint_pending(store: Store) -> None:
    """Say on stderr that some names are not what they should be yet, and what to do."""
    from dsollama.cli.output import hint

    found = pending(store)
    if found is not None:
        names = " and ".join(sorted(found.names))
        hint(f"Note: an install is giving {names} new weights, or was killed while it did.")
        hint("Hint: if none is at work, `dsollama gc --delete` finishes it.")


def finish_pending(store: Store) -> None:
    """Finish it, as everything does that changes the store.

    Raises:
        StoreError: the store cannot be locked.
    """
    if pending(store) is not None:
        store.require_writable()
        with store.changing():
            pass
