"""Having a plan's merged file in a store: made by either merger, or there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dsollama.events import Listener
from dsollama.install.by_program import merge_by_program
from dsollama.install.merged_file import MergedFile
from dsollama.install.one_pass import merge_in_one_pass
from dsollama.install.plan import InstallPlan
from dsollama.install.proof import prove
from dsollama.install.recheck import require_right
from dsollama.install.record import write_record
from dsollama.install.staging import locked_staging
from dsollama.install.state import look, require_room
from dsollama.store.store import Store


@dataclass(frozen=True)
class Made:
    """A merged file that a store has now.

    Attributes:
        digest: `sha256:HEX`.
        moved: bytes that came over the network now.
        copied: bytes read from files of this machine.
        resumed: bytes taken over from an earlier run.
        was_there: whether the store had it already, so that nothing was made or adopted.
    """

    digest: str
    moved: int
    copied: int
    resumed: int
    was_there: bool


def make(
    plan: InstallPlan,
    store: Store,
    adopt: Callable[[Path, MergedFile], None],
    listener: Listener,
    connections: int,
) -> Made:
    """Have the plan's merged file in `store`: made now, or there already and still right.

    Args:
        plan: what is made.
        store: where.
        adopt: takes the finished file out of the staging folder that it is given.
        listener: hears of progress.
        connections: parallel connections.

    Raises:
        DsollamaError: source, shard, store or engine errors, or InterruptedByUserError.
    """
    store.require_writable()
    prove(plan, store, listener)
    state = look(plan, store)
    if not state.installed:
        require_room(plan, state)
        with locked_staging(store, plan.key) as staging:
            state = look(plan, store)  # another dsollama may have been quicker
            if not state.installed:
                write_record(staging, plan.record)
                merge = merge_by_program if plan.program else merge_in_one_pass
                merged = merge(plan, staging, listener, connections)
                adopt(staging, merged)
                return Made(merged.digest, merged.moved, merged.copied, state.resumed, False)
    digest = str(state.installed)
    require_right(plan, store, digest, listener)
    return Made(digest, 0, 0, state.resumed, True)
