"""Options that several commands share, and the settings that follow from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dsollama.privileges import act_as_owner
from dsollama.settings import Settings

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Ollama's model folder. Default: OLLAMA_MODELS, else ~/.ollama/models.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def store_settings(store: Path | None) -> Settings:
    """Return the settings of a command that works in the store; root acts there as its owner.

    Raises:
        StoreNotWritableError: root cannot safely work there (`privileges.owner_of`).
    """
    settings = read_settings(store)
    act_as_owner(settings.store)
    return settings


def read_settings(store: Path | None = None) -> Settings:
    """Return the environment's settings, with `--store` if it was given."""
    return Settings.from_environ(os.environ, store)
