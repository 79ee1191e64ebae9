"""What to do about a finding, as commands that can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from dsollama.catalog.formats import THINKING, VARIANTS
from dsollama.catalog.models import find_by_repository
from dsollama.manifest.names import ModelName
from dsollama.sources.registry import source_named
from dsollama.store.ledger import LedgerEntry
from dsollama.store.spelling import Clash
from dsollama.store.store import Store
from dsollama.units import MAX_SHOWN, some_of

_MAX_NAMES = 100_000
"""Of all entries together, each a line of memory."""


def install_command(entry: LedgerEntry, store: Store, endpoint: str) -> str:
    """Return the `dsollama install` that gives the very blob again, under the same names.

    Args:
        entry: what the ledger knows of the blob.
        store: where it belongs.
        endpoint: the Hub that a command uses by itself.
    """
    before, options = source_named(entry.endpoint, trusted=endpoint).install_words(entry.commit)
    words = ["dsollama", "install", f"hf.co/{entry.repository}:{entry.quant}"]
    words += options
    words += _naming(entry)
    words += ["--store", str(store.root)]
    return f"{before} {shlex.join(words)}".strip()


def repair_command(names: Iterable[ModelName], store: Store) -> str:
    """Return the command that repairs what these models share."""
    first = next(iter(names))
    return shlex.join(["dsollama", "verify", str(first), "--repair", "--store", str(store.root)])


def again(
    entry: LedgerEntry | None, store: Store, endpoint: str, names: Iterable[ModelName]
) -> str:
    """Return the sentence that says how to install a model again."""
    if entry is not None and entry.listed:
        return f"Install it again: `{install_command(entry, store, endpoint)}`."
    shown = some_of([*map(str, names)])
    if entry is not None and entry.folder:
        return f"It was copied from {entry.folder}: copy {shown} from there again."
    return (
        f"dsollama does not know where it came from: get {shown} again as you got it, with "
        "`dsollama install`, `ollama pull` or `ollama create`."
    )


def _naming(entry: LedgerEntry) -> list[str]:
    """Return --name and --variants where the defaults would register other names.

    The install spells names as the store does, so case tells nothing here.
    """
    if not entry.names:
        return []
    model = find_by_repository(entry.repository)
    default = f"{model.name if model else f'hf.co/{entry.repository}'}:{entry.quant}"
    there = {name.casefold() for name in entry.names}
    if model is None:
        return [] if default.casefold() in there else ["--name", entry.names[0]]
    plain = (each.removesuffix(THINKING.tag_suffix) for each in entry.names)
    bases = {each.casefold(): each for each in plain}
    base = default if default.casefold() in bases else bases[min(bases)]
    variants = [
        each for each in model.variants if (base + VARIANTS[each].tag_suffix).casefold() in there
    ]
    words = [] if base == default else ["--name", base]
    if len(variants) < len(model.variants):
        words += ["--variants", ",".join(variants)]
    return words


class Origins:
    """Where models came from whose manifests do not tell their weights: by name, in the ledger."""

    def __init__(self, store: Store) -> None:
        """Look at nothing yet."""
        self._store = store

    def of_name(self, name: ModelName) -> LedgerEntry | None:
        """Return the first entry of the ledger that has the name."""
        digest = self._digests.get(str(name))
        return self._store.ledger.read(digest) if digest else None

    @cached_property
    def _digests(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for digest, entry in self._store.ledger.entries():
            for name in entry.names:
                if len(found) < _MAX_NAMES:
                    found.setdefault(name, digest)
        return found


def one_spelling(clash: Clash, store: Store) -> str:
    """Return the sentence that gives a part one spelling: that of the most names."""
    names = clash.names
    kept = min(names, key=lambda each: (-len(names[each]), each))
    there = {name for found in names.values() for name in found}
    moving = [name for spelling, found in names.items() if spelling != kept for name in found]
    commands, twins = [], []
    for name in moving[:MAX_SHOWN]:
        target = replace(name, **{clash.part: kept})
        if target in there:
            twins.append(str(name))
            target = replace(target, tag=f"{name.tag}-2")
        new = store.manifest_path(target)
        folder = [] if new.parent.is_dir() else [shlex.join(["mkdir", "-p", str(new.parent)])]
        move = shlex.join(["mv", "-n", str(store.manifest_path(name)), str(new)])
        commands.append(" && ".join([*folder, move]))
    told = "; ".join(f"`{each}`" for each in commands)
    if len(moving) > MAX_SHOWN:
        told += f"; and {len(moving) - MAX_SHOWN} more, which the next check tells"
    removal = f" Or remove {', '.join(twins)} with `dsollama remove`." if twins else ""
    return f"Give it one spelling: {told}.{removal}"
