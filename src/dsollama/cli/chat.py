"""`dsollama chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dsollama.settings import no_color_wanted

if TYPE_CHECKING:
    from dsollama.chat.conversation import Conversation
    from dsollama.engines.protocol import Part

_HELP = """Talk to an installed model through the running Ollama.

With PROMPT (or a prompt on stdin) one answer is printed: the answer on stdout, the thought on
stderr. Without, at a terminal, a conversation begins; /bye or Ctrl-D ends it.

MODEL may leave out its tag where only one quant is installed. --think takes the -thinking
variant, --no-think the plain one.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("chat", help=_HELP, short_help="Talk to an installed model.")(_chat)


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
    from dsollama.chat.conversation import require_text, start
    from dsollama.engines.registry import connect

    if prompt is None and not sys.stdin.isatty():
        prompt = require_text(sys.stdin.buffer.read()).strip()
    if prompt is not None and not prompt:
        raise typer.BadParameter("the prompt is empty")

    printer = _Printer(dim=sys.stderr.isatty() and not no_color_wanted())
    conversation = start(model, connect("ollama"), think=think, system=system)
    if prompt is not None:
        printer.answer(conversation.ask(prompt))
    else:
        _converse(conversation, printer)


def _converse(conversation: Conversation, printer: _Printer) -> None:
    from dsollama.cli.output import hint

    hint(f"{conversation.choice.name}; /bye or Ctrl-D ends")
    while True:
        try:
            prompt = input(">>> ").strip()
        except EOFError:
            hint("")
            return
        except UnicodeDecodeError:
            hint("That line is not text in UTF-8; it was not sent.")
            continue
        if prompt in {"/bye", "/exit", "/quit"}:
            return
        if prompt:
            try:
                printer.answer(conversation.ask(prompt))
            except KeyboardInterrupt:
                hint("\n(stopped; this answer is not kept)")


class _Printer:
    """Prints the answer on stdout and the thought apart from it: on stderr, and dim."""

    def __init__(self, *, dim: bool) -> None:
        self._dim, self._bright = ("\x1b[2m", "\x1b[0m") if dim else ("", "")

    def answer(self, parts: Iterator[Part]) -> None:
        """Print an answer as it arrives, ending with a newline."""
        from dsollama.cli.output import speak

        thinking = False
        try:
            for part in parts:
                if part.thinking != thinking:
                    thinking = part.thinking
                    self._mark(thinking=thinking)
                speak(part.text, sys.stderr if thinking else sys.stdout)
        finally:
            if thinking:
                print(self._bright, end="", file=sys.stderr)
        print()

    def _mark(self, *, thinking: bool) -> None:
        text = f"{self._dim}Thinking...\n" if thinking else f"\n...done thinking.{self._bright}\n\n"
        print(text, end="", flush=True, file=sys.stderr)
