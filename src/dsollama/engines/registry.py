"""The one table of engines. A new engine is a module beside this one, and an entry here.

Importing this imports none of them: a client may take most of a second.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Literal

from dsollama.engines.protocol import Engine


@dataclass(frozen=True)
class Registration:
    """An engine by name.

    Attributes:
        factory: MODULE:CLASS; the class takes an address, or None for the engine's usual one.
        templates: which language its chat templates have.
    """

    factory: str
    templates: Literal["go", "jinja"]


ENGINES = {
    "ollama": Registration("dsollama.engines.ollama:Ollama", "go"),
    "llama-server": Registration("dsollama.engines.llama_server:LlamaServer", "jinja"),
}


def connect(name: str, address: str | None = None) -> Engine:
    """Return the engine of that name; nothing is asked yet.

    Args:
        name: a key of ENGINES.
        address: where it runs; None for the engine's usual address.

    Raises:
        UsageError: the address is none.
    """
    engine: Engine = pkgutil.resolve_name(ENGINES[name].factory)(address)
    return engine
