"""dsollama: DeepSeek's 671B models in Ollama, from the shards on the Hub to `ollama run`."""

__version__ = "0.1.0"
