"""Which spelling of a name counts: Ollama compares names without regard to case, part by part.

Ollama 0.33.0 (getExistingName in server/routes.go) replaces each part of a name that it is given
(host, namespace, model, tag) by the spelling that it finds in any manifest of the store, whatever
the manifest's other parts are. Where it finds two spellings, one of them wins at random, so models
are "not found", or another one is deleted. Its own create, cp and pull look there before they
write, and so never bring in a second spelling. Nor do we.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from dsollama.manifest.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName
from dsollama.units import MAX_SHOWN

PARTS = ("host", "namespace", "model", "tag")

_DEFAULTS = {"host": DEFAULT_HOST, "namespace": DEFAULT_NAMESPACE, "tag": DEFAULT_TAG}


@dataclass(frozen=True)
class Clash:
    """A part that the store spells in more than one way.

    Attributes:
        part: one of PARTS.
        names: the names by the part's spelling, in order.
    """

    part: str
    names: dict[str, tuple[ModelName, ...]]

    def touches(self, name: ModelName) -> bool:
        """Whether Ollama may take this part of `name` for another spelling."""
        return getattr(name, self.part) in self.names

    def others(self, name: ModelName) -> tuple[ModelName, ...]:
        """Return names that spell this part in another way than `name` does, at most MAX_SHOWN."""
        if not self.touches(name):
            return ()
        own = getattr(name, self.part)
        found = (each for key, names in self.names.items() if key != own for each in names)
        return tuple(islice(found, MAX_SHOWN))

    def text(self) -> str:
        """Return the sentence that says so."""
        spelled = " and ".join(
            f"{spelling!r} (in {names[0]}{_more(len(names) - 1)})"
            for spelling, names in islice(self.names.items(), MAX_SHOWN)
        )
        return (
            f"The {self.part} {spelled} is one to Ollama, which takes either at random: "
            "these models may be 'not found', or one be deleted for the other."
        )


def spelled(name: ModelName, *existing: Sequence[ModelName]) -> ModelName:
    """Return `name` as it has to be written beside the `existing` names.

    A name that is there keeps its spelling as a whole. Else each part has the spelling that the
    store has for it; of several the given one, if it is among them. Ollama's defaults are spelled
    as Ollama spells them where the store says nothing.

    Args:
        name: as asked for.
        existing: the names of the store; a second list counts only where the first says nothing.
    """
    found = same_name(name, [each for names in existing for each in names])
    if found:
        return found[0]
    return ModelName(**{part: _spelled(part, getattr(name, part), existing) for part in PARTS})


def _spelled(part: str, typed: str, existing: Iterable[Sequence[ModelName]]) -> str:
    for names in existing:
        seen = [getattr(each, part) for each in names]
        alike: list[str] = [each for each in seen if _alike(each, typed)]
        if alike:
            return typed if typed in alike else alike[0]
    default = _DEFAULTS.get(part, typed)
    return default if _alike(default, typed) else typed


def same_name(name: ModelName, existing: Iterable[ModelName]) -> list[ModelName]:
    """Return the very name if it exists, else all that differ from it in case only."""
    alike = [each for each in existing if each.folded == name.folded]
    return [name] if name in alike else alike


def clashes(names: Iterable[ModelName]) -> tuple[Clash, ...]:
    """Return the parts that `names` spell in more than one way."""
    found = []
    names = sorted(set(names), key=str)
    for part in PARTS:
        spellings: dict[str, dict[str, list[ModelName]]] = {}
        for name in names:
            text = getattr(name, part)
            spellings.setdefault(text.casefold(), {}).setdefault(text, []).append(name)
        for _, by_spelling in sorted(spellings.items()):
            if len(by_spelling) > 1:
                ordered = {each: tuple(by_spelling[each]) for each in sorted(by_spelling)}
                found.append(Clash(part, ordered))
    return tuple(found)


def by_spelling(found: Iterable[Clash]) -> dict[tuple[str, str], Clash]:
    """Return the clashes by part and spelling, for `touching`."""
    return {(each.part, spelling): each for each in found for spelling in each.names}


def touching(name: ModelName, found: Mapping[tuple[str, str], Clash]) -> tuple[Clash, ...]:
    """Return the clashes in which Ollama may take a part of `name` for another spelling."""
    keys = ((part, getattr(name, part)) for part in PARTS)
    return tuple(found[key] for key in keys if key in found)


def _alike(one: str, other: str) -> bool:
    """Whether Ollama takes two parts for one; they are ASCII, so case is all there is."""
    return one.casefold() == other.casefold()


def _more(count: int) -> str:
    return f" and {count} more" if count else ""
