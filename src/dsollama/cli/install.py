"""`dsollama install`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, StoreOption, read_settings
from dsollama.cli.tables import MODELS, QUANTS, TableCommand
from dsollama.install.request import InstallRequest, Merger, Via

if TYPE_CHECKING:
    from dsollama.install.choose_destination import Chosen
    from dsollama.install.destination import Installed
    from dsollama.install.plan import InstallPlan
    from dsollama.settings import Settings

ASK_FROM = 10**9
"""From this many bytes on a person at a terminal is asked before the download."""

_HELP = f"""Download a quant, merge its shards into Ollama's store, and register it.

QUANT is the quant as the repository names it, in any case and with or without UD-. The default
model has {QUANTS} and others. Any other GGUF repository on the Hub goes by hf.co/OWNER/REPO:QUANT
and keeps its own chat template.

The download goes straight to its final place, so the model's own size is all the disk it needs;
every shard is checked against the Hub's digest. Ctrl-C is safe: the same command goes on where
it stopped. Ollama need not be running.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "install",
        cls=TableCommand,
        help=_HELP,
        short_help="Download, merge and register a quant.",
    )(_install)


def _install(
    target: Annotated[
        str,
        typer.Argument(
            metavar="QUANT", help="A quant, or hf.co/OWNER/REPO:QUANT.", show_default=False
        ),
    ] = "",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=f"{MODELS}; the first is the default.",
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
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from-dir",
            metavar="DIR",
            help="Take the shards that DIR holds already; only the others are downloaded.",
            show_default=False,
        ),
    ] = None,
    consume: Annotated[
        bool,
        typer.Option(
            "--consume",
            help="Delete each shard of --from-dir once its bytes are verified and merged, so that "
            "the merge needs no second disk.",
        ),
    ] = False,
    from_store: Annotated[
        Path | None,
        typer.Option(
            "--from-store",
            metavar="DIR",
            help="Copy the model from another Ollama store, such as a second machine's, mounted.",
            show_default=False,
        ),
    ] = None,
    from_url: Annotated[
        str | None,
        typer.Option(
            "--from-url",
            metavar="URL",
            help="Take the files from a folder of a web server that has SHA256SUMS, such as a "
            "mirror in your network, and not from the Hub.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an install that stopped; QUANT may then be left out."
        ),
    ] = False,
    store: StoreOption = None,
    via: Annotated[
        Via,
        typer.Option(
            "--via",
            help="store: write Ollama's store. api: hand it to the Ollama at OLLAMA_HOST, which "
            "may be another machine's or user's. auto: the store if it can be written.",
        ),
    ] = Via.AUTO,
    staging: Annotated[
        Path | None,
        typer.Option(
            "--staging",
            metavar="DIR",
            help="With the api: where the merged file waits for its upload. Default: "
            "~/.cache/dsollama.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace models that have these names, and do not ask."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    from dsollama.cli.output import hint, print_json, progress, say
    from dsollama.install.planning import make_plan

    if not target and not resume:
        raise typer.BadParameter("QUANT is missing (only --resume may go without it)")
    settings = read_settings(store)
    chosen = _choose(via, settings, staging)
    destination = chosen.destination
    request = InstallRequest(
        target=target,
        settings=settings,
        model=model,
        name=name,
        variants=tuple(each.strip() for each in variants.split(",") if each.strip()),
        revision=revision,
        merger=merger,
        resume=resume,
        from_dir=from_dir,
        consume=consume,
        from_store=from_store,
        from_url=from_url,
    )
    with progress(as_json=as_json and not dry_run) as listener:
        plan = make_plan(request, listener, destination)
    if dry_run:
        if as_json:
            print_json(plan.to_json() | chosen.to_json())
        else:
            _print_plan(plan)
            say(f"{'via':<11} {chosen.via}: {chosen.reason}")
        return
    for note in plan.notes:
        hint(f"Note: {note.rstrip('.')}.")
    hint(f"via {chosen.via}: {chosen.reason}")
    if not _agreed(plan, force=force, sure=yes or as_json):
        hint("Nothing was changed.")
        raise typer.Exit(1)
    with progress(as_json=as_json) as listener:
        done = destination.install(plan, listener, settings.connections)
    _print_done(done, settings.ollama_host, chosen, as_json=as_json)


def _agreed(plan: InstallPlan, *, force: bool, sure: bool) -> bool:
    """Ask what has to be asked; what replaces a model is done by --force alone, or by a person.

    Raises:
        NameTakenError: a model would be replaced, and nobody can be asked.
    """
    from dsollama.cli.output import confirm, hint, is_terminal
    from dsollama.install.replacing import require_forced
    from dsollama.units import format_bytes

    for each in plan.replaces:
        if force:
            hint(f"Replaces {each}.")
        elif sure or not is_terminal():
            require_forced(plan.replaces)
        elif not confirm(f"Replace {each}?", assume_yes=False, destroys=True):
            return False
    questions = {}
    if plan.to_move >= ASK_FROM:
        questions[f"Download {format_bytes(plan.to_move)} into {plan.store}?"] = False
    if plan.consume and plan.to_copy:
        questions[f"Delete each of the {len(plan.local)} local files once it is merged?"] = True
    return all(confirm(each, assume_yes=sure, destroys=bad) for each, bad in questions.items())


def _choose(via: Via, settings: Settings, staging: Path | None) -> Chosen:
    from dsollama.install.choose_destination import choose_destination
    from dsollama.privileges import act_as_owner
    from dsollama.settings import expanded

    folder = expanded(staging).absolute() if staging else None
    chosen = choose_destination(via, settings, folder)
    act_as_owner(chosen.destination.root)
    return chosen


def _print_plan(plan: InstallPlan) -> None:
    from dsollama.cli.output import say
    from dsollama.units import format_bytes

    lines = {
        "repository": f"{plan.repository} at {plan.commit[:12]} on {plan.endpoint}"
        if plan.endpoint
        else f"taken for {plan.repository}: {plan.folder}",
        "quant": f"{plan.quant}, {len(plan.shards)} file(s), {format_bytes(plan.size)} merged",
        "download": f"{format_bytes(plan.to_move)}"
        + (f" ({format_bytes(plan.state.resumed)} are in place)" if plan.state.resumed else "")
        + (" (the model is in the store already)" if plan.state.installed else ""),
        "copy": f"{format_bytes(plan.to_copy)} of {len(plan.local)} local file(s)"
        + (", each deleted once it is merged" if plan.consume else ""),
        "disk": f"needs {format_bytes(plan.state.needed)}, {format_bytes(plan.state.free)} free"
        + ("" if plan.state.needed <= plan.state.free else " - NOT ENOUGH"),
        "store": str(plan.store),
        "merger": plan.merger.value if plan.layout or plan.program else "none (a single file)",
    }
    if not plan.local:
        del lines["copy"]
    for key, value in lines.items():
        say(f"{key:<11} {value}")
    for model in plan.models:
        meaning = model.variant.meaning if model.variant else "with its own template"
        say(f"{'name':<11} {model.name} ({meaning})")
    for each in plan.replaces:
        say(f"{'replaces':<11} {each}")
    if plan.unchecked:
        say(f"{'unchecked':<11} {_unchecked(plan.unchecked)}")
    for note in plan.notes:
        say(f"{'note':<11} {note}")


def _unchecked(paths: tuple[str, ...]) -> str:
    return f"{len(paths)} file(s) with no published digest to compare with"


def _print_done(done: Installed, host: str | None, chosen: Chosen, *, as_json: bool) -> None:
    from dsollama.cli.output import hint, print_json, say
    from dsollama.units import format_bytes, format_duration

    if as_json:
        print_json({"event": "installed", **done.to_json(), **chosen.to_json()})
    else:
        for name in done.names:
            say(name)
        parts = [
            f"{format_bytes(done.moved)} downloaded" if done.moved else "",
            f"{format_bytes(done.copied)} copied" if done.copied else "",
        ]
        moved = ", ".join(filter(None, parts)) or "nothing to move"
        hint(f"Installed in {format_duration(done.seconds)} ({moved}).")
        if done.unchecked:
            hint(f"Note: unchecked: {_unchecked(done.unchecked)}.")
        hint(f"Now: ollama run {done.names[0]}")
    if not chosen.destination.address:
        _warn_if_unseen(done.names[0], host, done.store)


def _warn_if_unseen(name: str, host: str | None, store: Path) -> None:
    from dsollama.cli.output import hint, one_line
    from dsollama.errors import DsollamaError
    from dsollama.manifest.names import parse_name
    from dsollama.ollama.names import listed_names

    try:
        names = listed_names(host)
    except DsollamaError as error:  # the model is installed, whatever a server does
        why = one_line(str(error))
        hint(f"Note: the Ollama that is running cannot be asked whether it lists it: {why}")
        return
    if names is not None and parse_name(name).listed not in names:
        hint(
            f"Note: the Ollama that is running does not list it, because it uses another store. "
            f"Start it with OLLAMA_MODELS={store}, or install with --store into its own (that of "
            "a Linux service is /usr/share/ollama/.ollama/models)."
        )
