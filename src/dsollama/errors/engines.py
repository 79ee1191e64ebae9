"""The failures of engines and of llama.cpp's programs: exit code 6."""

from __future__ import annotations

from dsollama.errors.root import DsollamaError


class EngineError(DsollamaError):
    """Ollama or one of llama.cpp's programs failed or is not there."""

    code = "engine"
    exit_code = 6


class OllamaUnreachableError(EngineError):
    """No Ollama answers at OLLAMA_HOST."""

    code = "ollama-unreachable"


class OllamaSilentError(EngineError):
    """An Ollama that was reached takes longer than it may."""

    code = "ollama-silent"


class OllamaRefusedError(EngineError):
    """Ollama answered with an error."""

    code = "ollama-refused"


class OllamaTooOldError(EngineError):
    """An Ollama from before 0.30, which runs models and templates in another way."""

    code = "ollama-too-old"
    usual_hint = "Update it to 0.30 or newer."


class LlamaServerUnreachableError(EngineError):
    """No llama-server answers at the address."""

    code = "llama-server-unreachable"


class LlamaServerSilentError(EngineError):
    """A llama-server that was reached takes longer than it may."""

    code = "llama-server-silent"


class LlamaServerRefusedError(EngineError):
    """A llama-server answered with an error, or something else answered."""

    code = "llama-server-refused"


class ProgramMissingError(EngineError):
    """A program that the chosen road needs is not installed."""

    code = "program-missing"


class ProgramFailedError(EngineError):
    """A program ran and failed."""

    code = "program-failed"


class WrongMergeError(EngineError):
    """A program ended well, and what it wrote is not what the shards make."""

    code = "wrong-merge"
