"""Making the plan of an install: everything is asked and decided here, and nothing is written."""

from __future__ import annotations

from dataclasses import replace

from dsollama.events import Listener
from dsollama.install.contents import read_contents
from dsollama.install.destination import Destination
from dsollama.install.identity import key_of, planned_shard, program_of, record_of
from dsollama.install.naming import name_models, require_sayable, variants_of
from dsollama.install.notes import alike_note, notes_of
from dsollama.install.plan import DiskState, InstallPlan
from dsollama.install.refusals import require_sound
from dsollama.install.request import InstallRequest
from dsollama.install.selection import resolve
from dsollama.install.to_store import ToStore
from dsollama.store.store import Store


def make_plan(
    request: InstallRequest, listener: Listener, destination: Destination | None = None
) -> InstallPlan:
    """Ask the source, read the shards' headers by ranges, and decide everything.

    Args:
        request: what the user asks for.
        listener: hears of progress.
        destination: where the model goes; by default the store of the settings.

    Raises:
        DsollamaError: any kind of usage, source, shard or store error; nothing was written.
    """
    destination = destination or ToStore(request.settings.store)
    store = Store(destination.root)
    request.require_sense()
    request, target = resolve(request, store)
    variants = variants_of(target.model, request.variants)
    contents = read_contents(target, request, store, listener)
    choice, facts = contents.choice, contents.facts
    shards = tuple(planned_shard(choice, each) for each in choice.files)
    program = program_of(request, contents)
    models = name_models(request, target.model, choice.repository, choice.quant, variants, facts)
    named = destination.named(models)
    require_sayable(store, named.models)
    plan = InstallPlan(
        source=choice.source,
        repository=choice.repository,
        commit=choice.commit,
        quant=choice.quant,
        shards=shards,
        merger=request.merger,
        size=contents.size,
        facts=facts,
        store=store.root,
        key=key_of(request, choice, program),
        models=named.models,
        replaces=(),
        state=DiskState(),
        notes=(*notes_of(request, target.model, contents, shards), *named.notes),
        layout=contents.layout,
        headers=contents.headers,
        program=program,
        record=record_of(request, target, choice, contents.stamps),
        local=contents.local,
        remote=contents.remote,
        consume=request.consume,
        folder=choice.folder,
        ollama_host=request.settings.ollama_host,
    )
    return _with_state(plan, store, destination)


def _with_state(plan: InstallPlan, store: Store, destination: Destination) -> InstallPlan:
    """Return the plan with what is there already, if nothing speaks against it."""
    plan = replace(plan, state=destination.state(plan))
    require_sound(plan, store)
    notes = (*plan.notes, *alike_note(plan, store), *destination.notes(plan))
    return replace(plan, replaces=destination.replaced(plan), notes=notes)
