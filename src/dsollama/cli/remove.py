"""`dsollama remove`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, StoreOption, store_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dsollama.store.manifests import ManifestFile
    from dsollama.store.remove import RemovePlan

ASK_FROM = 10**9
"""From this many bytes on a person at a terminal is asked first."""

_HELP = """Remove models from the store, and free what no other model needs.

Weights that two names share go with the last of them: --all-variants takes every name that
shares the weights. A name without a tag means :latest, as for Ollama. Ollama need not be running;
a model that it has loaded stays loaded until it is unloaded, and its disk space is free then.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("remove", help=_HELP, short_help="Remove models and free their disk space.")(
        _remove
    )


def _remove(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Names as `dsollama list` shows them.")
    ],
    all_variants: Annotated[
        bool, typer.Option("--all-variants", help="Also all names with the same weights.")
    ] = False,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    from dsollama.cli.output import confirm, hint, print_json, say
    from dsollama.manifest.names import parse_name
    from dsollama.store.remove import plan_removal, remove
    from dsollama.store.store import Store
    from dsollama.units import format_bytes, some_of

    opened = Store(store_settings(store).store)
    names = [parse_name(each) for each in models]
    plan = plan_removal(opened, names, all_variants=all_variants)
    if dry_run:
        if as_json:
            print_json(plan.to_json())
        else:
            _print_plan(plan)
        return
    question = f"Remove {some_of(plan.names)} and free {format_bytes(plan.freed)}?"
    if plan.freed >= ASK_FROM and not confirm(question, assume_yes=yes or as_json, destroys=True):
        hint("Nothing was changed.")
        raise typer.Exit(1)
    done = remove(opened, names, all_variants=all_variants)
    if as_json:
        print_json({"event": "removed", **done.to_json()})
    else:
        for name in done.names:
            say(name)
    hint(f"Removed; {format_bytes(done.freed)} of disk freed.")
    _hint_kept(done)


def _print_plan(plan: RemovePlan) -> None:
    from dsollama.cli.output import say
    from dsollama.units import format_bytes

    for name in plan.names:
        say(f"{'name':<11} {name}")
    for freed in plan.blobs:
        say(f"{'free':<11} {freed.digest[:19]} ({format_bytes(freed.bytes)})")
    for kept in plan.kept:
        say(f"{'keep':<11} {kept.digest[:19]} ({format_bytes(kept.bytes)}): {kept.why}")
    say(f"{'disk':<11} {format_bytes(plan.freed)} become free")
    _hint_kept(plan)


def _hint_kept(plan: RemovePlan) -> None:
    from dsollama.cli.output import hint
    from dsollama.units import format_bytes, some_of

    hint_unreadable(plan.unreadable)
    shared = max(
        (each for each in plan.kept if each.users), key=lambda each: each.bytes, default=None
    )
    if shared is not None:
        hint(f"{format_bytes(shared.bytes)} stay for {some_of(shared.users)}.")


def hint_unreadable(manifests: Sequence[ManifestFile]) -> None:
    """Say on stderr which manifests keep every blob, and what to do."""
    from dsollama.cli.output import hint
    from dsollama.store.walk import printable

    for each in manifests:
        hint(f"Note: {printable(each.path)} {each.problem}, and so may name any blob: all stay.")
        way = "Repair it or move it out of the store"
        if each.name is not None:
            way = f"Repair it, or remove it with `dsollama remove {each.name}`"
        hint(f"Hint: {way}, then run `dsollama gc --delete`.")
