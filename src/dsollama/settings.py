"""The environment, read once and passed on; nothing else in dsollama looks at `os.environ`.

| variable | meaning |
|---|---|
| OLLAMA_MODELS | the store; default `~/.ollama/models`, as Ollama's own |
| OLLAMA_HOST | where the running Ollama answers; read by the `ollama` client |
| HF_ENDPOINT | the Hub; default https://huggingface.co |
| HF_TOKEN, HF_TOKEN_PATH, HF_HOME | the token; read by huggingface_hub |
| HF_HUB_OFFLINE | 1 forbids the network |
| NO_COLOR | any value: no colours |
| DSOLLAMA_CONNECTIONS | parallel connections of a download, 1 to 32; default 8 |
| LLAMA_GGUF_SPLIT | the program of `--merger llama-gguf-split` |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_CONNECTIONS = 8
MAX_CONNECTIONS = 32
_TRUE = {"1", "on", "yes", "true"}


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Attributes:
        store: Ollama's model folder (the one that holds `blobs` and `manifests`).
        endpoint: address of the Hub, without a slash at its end.
        offline: whether the network is forbidden.
        ollama_host: OLLAMA_HOST as it stands, or None.
        connections: parallel connections of a download.
        gguf_split: path of `llama-gguf-split` where LLAMA_GGUF_SPLIT names one.
        no_color: whether colours and the like are unwanted.
    """

    store: Path
    endpoint: str = DEFAULT_ENDPOINT
    offline: bool = False
    ollama_host: str | None = None
    connections: int = DEFAULT_CONNECTIONS
    gguf_split: str | None = None
    no_color: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables of this module's table; unreadable numbers fall back to defaults."""
        # Ollama, too, takes off spaces and quotation marks (envconfig.Var).
        store = environ.get("OLLAMA_MODELS", "").strip().strip("\"'") or "~/.ollama/models"
        raw = environ.get("DSOLLAMA_CONNECTIONS", "")
        connections = int(raw[:9]) if raw.isdecimal() else DEFAULT_CONNECTIONS
        home = store == "~" or store.startswith("~/")
        return cls(
            store=(Path(store).expanduser() if home else Path(store)).absolute(),
            endpoint=(environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
            offline=environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
            ollama_host=environ.get("OLLAMA_HOST") or None,
            connections=min(max(connections, 1), MAX_CONNECTIONS),
            gguf_split=environ.get("LLAMA_GGUF_SPLIT") or None,
            no_color=bool(environ.get("NO_COLOR")),
        )
