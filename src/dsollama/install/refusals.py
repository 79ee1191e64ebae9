"""What speaks against a plan, looked at before anything is written."""

from __future__ import annotations

from dsollama.install.consume import require_consumable
from dsollama.install.plan import InstallPlan
from dsollama.install.recheck import require_header
from dsollama.store.store import Store


def require_sound(plan: InstallPlan, store: Store) -> None:
    """Refuse to delete what could not be had again, and to name weights that are damaged.

    Raises:
        UsageError: a local file cannot be consumed.
        DamagedBlobError: the weights in the store have another header.
    """
    if plan.consume:
        require_consumable(plan.shards, plan.local)
    require_header(plan, store)
