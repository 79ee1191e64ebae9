"""`dsollama gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, StoreOption, store_settings
from dsollama.cli.remove import ASK_FROM, hint_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsollama.store.finding import Finding
    from dsollama.store.garbage import Garbage

_HELP = """Find what nothing in the store needs any more; delete it with --delete.

Finds blobs that no model uses, installs and downloads that stopped, and dsollama's own leftovers.
--delete deletes what dsollama put there itself, but keeps an install that stopped and can go on,
or whose upload can, however old it is. --delete --all deletes that too, and what Ollama left. What
is at work, younger than an hour and not dsollama's, or not a plain file is never touched.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("gc", help=_HELP, short_help="Find and delete what nothing needs any more.")(_gc)


def _gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what dsollama put there.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --delete: also the rest that may be deleted.")
    ] = False,
    store: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    import time

    from dsollama.cli.output import confirm, hint
    from dsollama.cli.pending import finish_pending, hint_pending
    from dsollama.store.garbage import delete_garbage, find_garbage, freed
    from dsollama.store.store import Store
    from dsollama.transfer.journal import claimed_bytes
    from dsollama.units import format_bytes

    opened = Store(store_settings(store).store)
    if delete:
        finish_pending(opened)
    hint_pending(opened)
    now = time.time()
    found = find_garbage(opened, claimed_bytes, now)
    if not delete:
        _report(found, as_json=as_json)
        return
    chosen = found.swept(everything=everything)
    question = f"Delete {len(chosen)} files or folders and free {format_bytes(freed(chosen))}?"
    if freed(chosen) >= ASK_FROM and not confirm(
        question, assume_yes=yes or as_json, destroys=True
    ):
        hint("Nothing was changed.")
        raise typer.Exit(1)
    deleted = delete_garbage(opened, chosen, claimed_bytes, now) if chosen else ()
    _tell(found, deleted, as_json=as_json)


def _report(found: Garbage, *, as_json: bool) -> None:
    from dsollama.cli.output import hint, print_json, print_table
    from dsollama.store.garbage import freed
    from dsollama.units import format_bytes

    if as_json:
        print_json(found.to_json())
    elif found.findings:
        print_table(
            [
                ["DELETED BY", "FREES", "WHAT", "WHY"],
                *(_row(found, each) for each in found.findings),
            ]
        )
    own, all_of_it = (found.swept(everything=each) for each in (False, True))
    if own:
        hint(f"dsollama gc --delete frees {format_bytes(freed(own))}.")
    if len(all_of_it) > len(own):
        hint(f"dsollama gc --delete --all frees {format_bytes(freed(all_of_it))}.")
    if not all_of_it:
        hint(f"{found.store} has no garbage that may be deleted.")
    _hint_more(found)
    hint_unreadable(found.unreadable)


def _hint_more(found: Garbage) -> None:
    from dsollama.cli.output import hint

    if found.more:
        hint(f"Note: {found.more} more like these were found; the next run takes up with them.")


def _row(found: Garbage, each: Finding) -> list[str]:
    from dsollama.store.walk import printable
    from dsollama.units import format_bytes

    path = printable(each.path.relative_to(found.store))
    return [each.sweep.value, format_bytes(each.bytes), path, each.why]


def _tell(found: Garbage, deleted: Sequence[Finding], *, as_json: bool) -> None:
    from dsollama.cli.output import hint, print_json, say
    from dsollama.store.garbage import freed
    from dsollama.store.walk import printable
    from dsollama.units import format_bytes

    if as_json:
        gone = {each.path for each in deleted}
        left = [each.to_json() for each in found.findings if each.path not in gone]
        print_json(
            {
                "event": "collected",
                "store": printable(found.store),
                "freed": freed(deleted),
                "deleted": [each.to_json() for each in deleted],
                "left": left,
                "more_findings": found.more,
                "unreadable": [each.to_json() for each in found.unreadable],
            }
        )
    else:
        for each in deleted:
            say(printable(each.path.relative_to(found.store)))
    hint(f"Deleted {len(deleted)} files or folders; {format_bytes(freed(deleted))} of disk freed.")
    _hint_more(found)
    hint_unreadable(found.unreadable)
