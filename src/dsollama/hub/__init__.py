"""The Hugging Face Hub: what a repository holds at a pinned commit, and ranges of its files.

`listing` asks through huggingface_hub, whose answers `bounded` bounds; `ranges` reads bytes.
Knows neither GGUF nor Ollama.
"""

from dsollama.settings import usual_endpoint

usual_endpoint()  # huggingface_hub reads HF_ENDPOINT when it is imported, and shows a part of it
