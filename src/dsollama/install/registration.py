"""What registering a plan writes: its small layers, manifests and Modelfiles."""

from __future__ import annotations

from dataclasses import replace

from dsollama.install.plan import InstallPlan
from dsollama.manifest.layers import MODEL, Layer, layer_entry, manifest_bytes
from dsollama.store.registering import Registration, plan_registration
from dsollama.store.store import Store


def small_layers_of(plan: InstallPlan) -> list[Layer]:
    """Return the layers beside the weights, of all names."""
    return [layer for model in plan.models for layer in (model.config, *model.small)]


def registration_of(plan: InstallPlan, store: Store, digest: str) -> Registration:
    """Return what giving the weights `digest` the plan's names writes."""
    weights = layer_entry(MODEL, digest, plan.size)
    base = str(store.blob_path(digest))
    return plan_registration(
        store,
        digest,
        plan.size,
        {each.digest: each.data for each in small_layers_of(plan)},
        {
            model.name: (
                manifest_bytes(model.config, weights, model.small),
                replace(model.modelfile, base=base).render(),
            )
            for model in plan.models
        },
    )
