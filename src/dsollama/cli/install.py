"""`dsollama install`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, StoreOption, read_settings
from dsollama.install.request import InstallRequest, Merger

if TYPE_CHECKING:
    from dsollama.install.execute import Installed
    from dsollama.install.plan import InstallPlan

ASK_FROM = 10**9
"""From this many bytes on a person at a terminal is asked before the download."""

_HELP = """Download a quant, merge its shards into Ollama's store, and register it.

QUANT is the quant as the repository names it, in any case and with or without UD-: UD-Q2_K_XL
(251 GB, recommended), q2_k_xl, TQ1_0 (170 GB), Q4_K_M... Any other GGUF repository on the Hub
goes by hf.co/OWNER/REPO:QUANT and keeps its own chat template.

The download goes straight to its final place, so the model's own size is all the disk it needs;
every shard is checked against the Hub's digest. Ctrl-C is safe: the same command goes on where
it stopped. Ollama need not be running.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("install", help=_HELP, short_help="Download, merge and register a quant.")(_install)


def _install(
    target: Annotated[
        str, typer.Argument(metavar="QUANT", help="A quant, or hf.co/OWNER/REPO:QUANT.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="v3.1-terminus (default), v3.1, v3-0324 or r1-0528.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name in Ollama, such as my-deepseek or my-deepseek:q2; -thinking is added to "
            "the tag of that variant.",
            show_default=False,
        ),
    ] = None,
    variants: Annotated[
        str,
        typer.Option(
            "--variants",
            help="Template variants, with commas: plain,thinking. Default: all.",
            show_default=False,
        ),
    ] = "",
    revision: Annotated[
        str | None,
        typer.Option(
            "--revision", help="Branch, tag or commit of the repository.", show_default=False
        ),
    ] = None,
    merger: Annotated[
        Merger,
        typer.Option(
            "--merger",
            help="native: one pass while downloading. llama-gguf-split: download, then run that "
            "program (needs twice the disk; the bytes are the same).",
        ),
    ] = Merger.NATIVE,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    from dsollama.cli.output import confirm, hint, print_json, progress
    from dsollama.install.execute import execute
    from dsollama.install.plan import make_plan
    from dsollama.units import format_bytes

    settings = read_settings(store)
    request = InstallRequest(
        target=target,
        settings=settings,
        model=model,
        name=name,
        variants=tuple(each.strip() for each in variants.split(",") if each.strip()),
        revision=revision,
        merger=merger,
    )
    with progress(as_json=as_json and not dry_run) as listener:
        plan = make_plan(request, listener)
    if dry_run:
        if as_json:
            print_json(plan.to_json())
        else:
            _print_plan(plan)
        return
    question = f"Download {format_bytes(plan.to_move)} into {plan.store}?"
    if plan.to_move >= ASK_FROM and not confirm(question, assume_yes=yes or as_json):
        hint("Nothing was changed.")
        raise typer.Exit(1)
    with progress(as_json=as_json) as listener:
        done = execute(plan, listener, settings.connections)
    _print_done(done, settings.ollama_host, as_json=as_json)


def _print_plan(plan: InstallPlan) -> None:
    from dsollama.units import format_bytes

    lines = {
        "repository": f"{plan.repository} at {plan.commit[:12]} on {plan.endpoint}",
        "quant": f"{plan.quant}, {len(plan.shards)} file(s), {format_bytes(plan.size)} merged",
        "download": f"{format_bytes(plan.to_move)}"
        + (f" ({format_bytes(plan.resumed)} are in place)" if plan.resumed else "")
        + (" (the model is in the store already)" if plan.installed else ""),
        "disk": f"needs {format_bytes(plan.needed)}, {format_bytes(plan.free)} free"
        + ("" if plan.needed <= plan.free else " - NOT ENOUGH"),
        "store": str(plan.store),
        "merger": plan.merger.value if plan.layout or plan.program else "none (a single file)",
    }
    for key, value in lines.items():
        typer.echo(f"{key:<11} {value}")
    for model in plan.models:
        meaning = model.variant.meaning if model.variant else "with its own template"
        typer.echo(f"{'name':<11} {model.name} ({meaning})")
    for note in plan.notes:
        typer.echo(f"{'note':<11} {note}")


def _print_done(done: Installed, host: str | None, *, as_json: bool) -> None:
    from dsollama.cli.output import hint, print_json
    from dsollama.units import format_bytes, format_duration

    if as_json:
        print_json({"event": "installed", **done.to_json()})
    else:
        for name in done.names:
            typer.echo(name)
        moved = f"{format_bytes(done.moved)} downloaded" if done.moved else "nothing to move"
        hint(f"Installed in {format_duration(done.seconds)} ({moved}).")
        hint(f"Now: ollama run {done.names[0]}")
    _warn_if_unseen(done.names[0], host, done.store)


def _warn_if_unseen(name: str, host: str | None, store: Path) -> None:
    from dsollama.cli.output import hint
    from dsollama.ollama.names import listed_names

    names = listed_names(host)
    if names is not None and name not in names:
        hint(
            f"Note: the Ollama that is running does not list it, because it uses another store. "
            f"Start it with OLLAMA_MODELS={store}, or install with --store into its own (that of "
            "a Linux service is /usr/share/ollama/.ollama/models)."
        )
