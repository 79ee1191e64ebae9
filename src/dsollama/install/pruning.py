"""Weights without a name: a starting Ollama deletes them, and others may remove them."""

from __future__ import annotations

from dsollama.errors import StoreBusyError
from dsollama.install.plan import InstallPlan
from dsollama.install.registration import small_layers_of
from dsollama.ollama.address import server_address
from dsollama.ollama.starting import await_start
from dsollama.store.manifests import named, read_manifests
from dsollama.store.store import Store


def await_pruning(plan: InstallPlan, store: Store, digest: str) -> None:
    """Let an Ollama that is just starting end its pruning; the next one finds the blob young.

    Raises:
        StoreBusyError: it does not end.
    """
    there = {
        each.digest for each in small_layers_of(plan) if store.has_blob(each.digest, each.size)
    }
    if named(read_manifests(store.root)).issuperset({digest, *there}):
        return
    address = server_address(plan.ollama_host)
    if not await_start(address):
        raise StoreBusyError(
            f"The Ollama at {address} takes connections and does not answer; if it is starting, "
            "it deletes weights that have no name yet.",
            "Run the same command again when it answers, or when it is stopped.",
        )


def require_blob(plan: InstallPlan, store: Store, digest: str) -> None:
    """Refuse to go on without the weights.

    Raises:
        StoreBusyError: they are gone.
    """
    if not store.has_blob(digest, plan.size):
        raise StoreBusyError(
            "The model's weights have just been removed, by Ollama or another dsollama.",
            "Run the same command again: it downloads them.",
        )
