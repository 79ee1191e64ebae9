"""`dsollama verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import JsonOption, read_settings

if TYPE_CHECKING:
    from dsollama.verify.prompts import Report

EXIT_DIFFERENT = 7
"""The prompts differ: for scripts that run this after every update of Ollama."""

_HELP = """Prove that the running Ollama feeds MODEL the prompts that DeepSeek asked for.

Renders a built-in set of conversations on the server at OLLAMA_HOST, without generating a word,
and compares every prompt to the letter. Run it again after each update of Ollama: exit code 0
means right, 7 means that prompts differ, and the reason is said in words.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("verify", help=_HELP, short_help="Prove that Ollama's prompts are DeepSeek's.")(
        _verify
    )


def _verify(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="As `ollama list` shows it.")],
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Compare the rendered prompts (the default).")
    ] = True,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Which model it is, if its name does not tell: v3.1-terminus, v3.1, v3-0324, "
            "r1-0528.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    from dsollama.cli.output import hint, print_json
    from dsollama.verify.prompts import verify_prompts

    hint(f"rendering prompts as {name} (the first one loads the model)")
    report = verify_prompts(name, read_settings().ollama_host, model)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.wrong:
        hint(f"Hint: {report.advice}")
        raise typer.Exit(EXIT_DIFFERENT)


def _print(report: Report) -> None:
    if not report.wrong:
        typer.echo(
            f"{report.name} on Ollama {report.server}: all {len(report.checks)} prompts are "
            f"DeepSeek's, to the letter ({report.model}, {report.variant})."
        )
        return
    typer.echo(f"{report.name} on Ollama {report.server}: {report.reason}")
    first = report.wrong[0]
    typer.echo(f"  for example {first.name!r}:")
    typer.echo(f"  is        {first.rendered[-120:]!r}")
    typer.echo(f"  should be {first.expected[-120:]!r}")
