"""`dsollama template show` and `dsollama template render`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dsollama.cli.tables import MODELS, RENDERERS, TableCommand

_RENDER_HELP = """Render a conversation and print the prompt, to the letter.

MESSAGES is a file with a JSON list of messages, as /api/chat takes them; - or nothing reads it
from stdin. The engine jinja is our fixed Jinja, here; go and ollama are the same: the running
Ollama, under --name; llama-server asks the one at --url.
"""

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help=f"{MODELS}; the first is the default.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    templates = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Show and render the chat templates."
    )
    templates.command(
        "show",
        cls=TableCommand,
        help="Print a template: for Ollama (go) or for llama.cpp (jinja).",
    )(_show)
    templates.command(
        "render", cls=TableCommand, help=_RENDER_HELP, short_help="Render a conversation."
    )(_render)
    app.add_typer(templates, name="template")


def _show(
    model: ModelOption = None,
    variant: Annotated[str, typer.Option("--variant", help="Of the go template.")] = "",
    engine: Annotated[str, typer.Option("--engine", help=f"Of which engine: {RENDERERS}.")] = "go",
) -> None:
    from dsollama.catalog.models import DEFAULT_MODEL, find_model
    from dsollama.prompts.renderers import find_renderer
    from dsollama.templates.jinja import jinja_template
    from dsollama.templates.variants import choose_variants, go_template

    found = find_model(model or DEFAULT_MODEL)
    if find_renderer(engine).templates == "jinja":
        typer.echo(jinja_template(found.format), nl=False)
        return
    wanted = [variant] if variant else found.variants[:1]
    typer.echo(go_template(found.format, choose_variants(found.variants, wanted)[0]), nl=False)


def _render(
    messages: Annotated[
        str, typer.Argument(metavar="[MESSAGES]", help="A JSON file, or - for stdin.")
    ] = "-",
    model: ModelOption = None,
    engine: Annotated[str, typer.Option("--engine", help=f"What renders: {RENDERERS}.")] = "jinja",
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="Mode.", show_default=False)
    ] = None,
    tools: Annotated[
        str | None, typer.Option("--tools", metavar="FILE", help="A JSON list of tools.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The model's name on the running Ollama.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="Address of the engine. Default: OLLAMA_HOST; of a llama-server "
            "http://127.0.0.1:8001.",
            show_default=False,
        ),
    ] = None,
) -> None:
    from dsollama.catalog.models import DEFAULT_MODEL, find_model
    from dsollama.cli.output import write
    from dsollama.engines.protocol import Chat
    from dsollama.prompts.render import render

    found = find_model(model or DEFAULT_MODEL)
    asked = Chat(name or "", _read_list(messages), _read_list(tools) if tools else [], think)
    write(render(engine, found, asked, url))


def _read_list(path: str) -> list[dict[str, Any]]:
    from dsollama.errors import UsageError

    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UsageError(
            f"{path} is not a JSON list of objects.",
            'Messages look like [{"role": "user", "content": "Hello!"}].',
        )
    return found
