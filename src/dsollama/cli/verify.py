"""`dsollama verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, StoreOption, store_settings
from dsollama.cli.tables import MODELS, TableCommand
from dsollama.settings import usual_ollama_host

if TYPE_CHECKING:
    from pathlib import Path

    from dsollama.check.findings import StoreReport
    from dsollama.prompts.verify import Report

EXIT_FAILED = 7
"""Something is not as it should be: for scripts that run this after updates, or by the clock."""

_HELP = """Check what is on the disk, or with --prompts what the running Ollama makes of it.

Reads every layer of MODEL (of all models where none is named; shared ones once) and compares its
SHA-256 with its name, looks into the settings and the header of the weights, and names damaged
parts. --repair downloads only those. Ollama need not be running.

--prompts renders a built-in set of conversations on the server at OLLAMA_HOST, without generating
a word, and compares every prompt to the letter. Run it again after each update of Ollama.

Exit code 0 means right; 7 means that something is not, and it is said in words.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "verify",
        cls=TableCommand,
        help=_HELP,
        short_help="Check the files, or Ollama's prompts.",
    )(_verify)


def _verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="As `dsollama list` shows it.", show_default=False
        ),
    ] = None,
    store: StoreOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave the weights unread but for their header.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Download damaged parts of the weights again.")
    ] = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Compare the prompts that Ollama renders instead.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=f"With --prompts: which model it is, if its name does not tell: {MODELS}.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    from dsollama.errors import UsageError

    if prompts:
        if quick or repair or store:
            raise UsageError(
                "--prompts asks the running Ollama and reads no files.",
                "Leave out --quick, --repair and --store, or leave out --prompts.",
            )
        if not names or len(names) > 1:
            raise UsageError("--prompts takes one MODEL.", "`ollama list` shows them.")
        _verify_prompts(names[0], model, as_json=as_json)
        return
    if model:
        raise UsageError("--model goes with --prompts.", "Leave it out, or add --prompts.")
    if quick and repair:
        raise UsageError(
            "--quick reads no weights, so it has nothing to repair.", "Leave out one of the two."
        )
    _verify_store(names or [], store, quick=quick, repair=repair, as_json=as_json)


def _verify_store(
    names: list[str], store: Path | None, *, quick: bool, repair: bool, as_json: bool
) -> None:
    import time

    from dsollama.check.check import check
    from dsollama.check.plan import plan_check
    from dsollama.cli.output import hint, print_json, progress
    from dsollama.cli.pending import finish_pending, hint_pending
    from dsollama.manifest.names import parse_name
    from dsollama.store.store import Store

    settings = store_settings(store)
    opened = Store(settings.store)
    if repair:
        finish_pending(opened)
    hint_pending(opened)
    wanted = [parse_name(name) for name in names]
    plan = plan_check(settings, wanted, quick=quick, repair=repair)
    if not plan.models and not as_json:
        hint(f"{plan.store} holds no model yet. Try: dsollama install UD-Q2_K_XL")
        return
    began = time.monotonic()
    with progress(as_json=as_json) as listener:
        report = check(plan, listener)
    if as_json:
        print_json({"event": "verified", **report.to_json()})
    else:
        _print_store(report, time.monotonic() - began)
    if not report.right:
        raise typer.Exit(EXIT_FAILED)


def _print_store(report: StoreReport, seconds: float) -> None:
    from dsollama.cli.output import hint, say
    from dsollama.units import format_bytes, format_duration

    for model in report.models:
        state = "repaired, right" if model.repaired else "right"
        say(f"{model.name}: {'WRONG' if model.findings else state}")
        if model.unchecked:
            say(f"  {model.unchecked} [unchecked]")
        for finding in model.findings:
            say(f"  {finding.message} [{finding.code}]")
    hints = {finding.hint: None for model in report.models for finding in model.findings}
    for text in hints:
        hint(f"Hint: {text}")
    done = f"{format_bytes(report.hashed)} read in {format_duration(seconds)}"
    if report.mended:
        done += (
            f", {format_bytes(report.mended)} repaired ({format_bytes(report.fetched)} downloaded)"
        )
    hint(done + (". The weights were not read: --quick." if report.quick else "."))


def _verify_prompts(name: str, model: str | None, *, as_json: bool) -> None:
    from dsollama.cli.output import hint, print_json
    from dsollama.prompts.verify import verify_prompts

    hint(f"rendering prompts as {name} (the first one loads the model)")
    report = verify_prompts(name, usual_ollama_host(), model)
    if as_json:
        print_json(report.to_json())
    else:
        _print_prompts(report)
    if report.wrong:
        hint(f"Hint: {report.advice}")
        raise typer.Exit(EXIT_FAILED)


def _print_prompts(report: Report) -> None:
    from dsollama.cli.output import say

    if not report.wrong:
        say(
            f"{report.name} on Ollama {report.server}: all {len(report.checks)} prompts are "
            f"DeepSeek's, to the letter ({report.model}, {report.variant})."
        )
        return
    say(f"{report.name} on Ollama {report.server}: {report.reason}")
    first = report.wrong[0]
    say(f"  for example {first.name!r}:")
    say(f"  is        {first.rendered[-120:]!r}")
    say(f"  should be {first.expected[-120:]!r}")
