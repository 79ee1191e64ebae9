"""Which of a model's names is meant. Pure; the names come from the server."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dsollama.catalog.formats import THINKING
from dsollama.errors import NotInstalledError, UsageError

MAX_TOLD = 30
"""Names that a hint lists."""


@dataclass(frozen=True)
class Choice:
    """The name to ask and what to say of thinking; `think` None leaves it to the name."""

    name: str
    think: bool | None


def choose_name(typed: str, names: Collection[str], think: bool | None) -> Choice:
    """Return the name and the `think` value for a request.

    A name without a tag means the only quant that is installed of that model. `think` chooses
    the variant where there is one, and is passed on to Ollama where there is not.

    Args:
        typed: the user's MODEL.
        names: all names that the server lists.
        think: --think (True), --no-think (False) or neither (None).

    Raises:
        NotInstalledError: no such model.
        UsageError: several quants are meant.
    """
    name = _full_name(typed, names)
    thinking = name.endswith(THINKING.tag_suffix)
    other = name.removesuffix(THINKING.tag_suffix) if thinking else name + THINKING.tag_suffix
    if think is None or think == thinking:
        return Choice(name, None)
    if other in names:
        return Choice(other, None)
    return Choice(name, think)


def _full_name(typed: str, names: Collection[str]) -> str:
    wanted = typed.lower()
    for name in names:
        if name.lower() in {wanted, f"{wanted}:latest"}:
            return name
    quants = sorted(
        name
        for name in names
        if name.lower().startswith(f"{wanted}:") and not name.endswith(THINKING.tag_suffix)
    )
    if len(quants) == 1:
        return quants[0]
    if quants:
        raise UsageError(
            f"{typed!r} is installed more than once.", "Say which: " + ", ".join(quants)
        )
    raise NotInstalledError(
        f"Ollama has no model {typed!r}.",
        f"It has {_told(names)}. If dsollama installed it, the server uses "
        "another store: compare OLLAMA_MODELS of both.",
    )


def _told(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:MAX_TOLD]) or "none"
    return f"{first} and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else first
