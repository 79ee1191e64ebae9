"""`dsollama chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.cli.options import read_settings

if TYPE_CHECKING:
    from dsollama.chat.conversation import Conversation, Part

_HELP = """Talk to an installed model through the running Ollama.

With PROMPT (or a prompt on stdin) one answer is printed: the answer on stdout, the thought on
stderr. Without, at a terminal, a conversation begins; /bye or Ctrl-D ends it.

MODEL may leave out its tag where only one quant is installed. --think takes the -thinking
variant, --no-think the plain one.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("chat", help=_HELP)(_chat)


def _chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `ollama list` shows it.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="What to ask.", show_default=False)
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Which variant answers.", show_default=False),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", help="A system prompt for this conversation.")
    ] = "",
) -> None:
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is not None and not prompt:
        raise typer.BadParameter("the prompt is empty")

    from dsollama.chat.conversation import start

    conversation = start(model, read_settings().ollama_host, think=think, system=system)
    if prompt is not None:
        _print_answer(conversation.ask(prompt))
    else:
        _converse(conversation)


def _converse(conversation: Conversation) -> None:
    typer.echo(f"{conversation.choice.name}; /bye or Ctrl-D ends", err=True)
    while True:
        try:
            prompt = input(">>> ").strip()
        except EOFError:
            typer.echo(err=True)
            return
        if prompt in {"/bye", "/exit", "/quit"}:
            return
        if prompt:
            try:
                _print_answer(conversation.ask(prompt))
            except KeyboardInterrupt:
                typer.echo("\n(stopped; this answer is not kept)", err=True)


def _print_answer(parts: Iterator[Part]) -> None:
    """Print the thought apart from the answer: dim, and on stderr."""
    thinking = False
    for part in parts:
        if part.thinking != thinking:
            thinking = part.thinking
            _mark("Thinking...\n" if thinking else "\n...done thinking.\n\n")
        if thinking:
            _mark(part.text)
        else:
            typer.echo(part.text, nl=False)
            sys.stdout.flush()
    typer.echo()


def _mark(text: str) -> None:
    typer.secho(text, nl=False, err=True, dim=True)
    sys.stderr.flush()
