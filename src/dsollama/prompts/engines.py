"""The engines that can render a prompt; apart, so that a command's help imports no client."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    """What renders: our Jinja here, the Go template in a running Ollama, or a llama-server."""

    JINJA = "jinja"
    GO = "go"
    OLLAMA = "ollama"
    LLAMA_SERVER = "llama-server"
