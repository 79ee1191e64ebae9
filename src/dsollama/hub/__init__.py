"""The Hugging Face Hub: what a repository holds at a pinned commit, and ranges of its files.

`listing` asks through huggingface_hub, whose answers `bounded` bounds; `ranges` reads bytes.
Knows neither GGUF nor Ollama.
"""
