"""The shapes of Ollama's JSON, as far as it is read: what is not of them is refused.

What dsollama does not read is skipped without being built, however deep or large it is.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

MAX_MODELS = 20_000
"""That a server may list; each costs half a kilobyte of memory."""

Count = Annotated[int, Meta(ge=0)]


class Refusal(Struct, frozen=True):
    """Any answer, as far as it tells of an error."""

    error: str = ""


class Version(Struct, frozen=True):
    """Of /api/version."""

    version: str = ""


class Model(Struct, frozen=True):
    """A model of /api/tags: its name, its manifest's digest, and its size in bytes."""

    name: str
    digest: str = ""
    size: Count = 0


class Tags(Struct, frozen=True):
    """Of /api/tags."""

    models: Annotated[tuple[Model, ...], Meta(max_length=MAX_MODELS)] | None = None


class Shown(Struct, frozen=True):
    """Of /api/show; `template` is the one that Ollama uses, `modelfile` has the model's own."""

    modelfile: str = ""
    template: str = ""
    system: str = ""
    parameters: str = ""


class Prompt(Struct, frozen=True):
    """A prompt that was rendered."""

    rendered_template: str


class Rendered(Struct, frozen=True):
    """Of /api/chat where nothing is generated."""

    prompt: Prompt | None = field(name="_debug_info", default=None)


class Progress(Struct, frozen=True):
    """A line of /api/create and /api/pull."""

    status: str = ""
    error: str = ""
    completed: int | None = None
    total: int | None = None
