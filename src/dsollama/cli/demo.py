"""`dsollama demo`."""

from __future__ import annotations

from typing import Annotated

import typer

_HELP = """Rehearse everything on this machine with a tiny real model; downloads nothing.

Makes a small GGUF of DeepSeek's architecture in shards, serves it from a Hub on loopback, runs
the very install of UD-Q2_K_XL into a store of its own, starts a private Ollama on it, and talks
to the model, not thinking and thinking. Needs Ollama 0.30 or newer; leaves nothing behind.
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("demo", help=_HELP, short_help="Rehearse it all with a tiny real model.")(_demo)


def _demo(
    program: Annotated[
        str | None,
        typer.Option(
            "--ollama",
            metavar="PATH",
            help="The Ollama to use. Default: the one on PATH, else that of `make engines`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    from dsollama.cli.output import say
    from dsollama.demo.rehearsal import rehearse
    from dsollama.ollama.private import find_ollama

    rehearse(find_ollama(program), say)
