"""The chat templates of the catalog's models: for Ollama (Go) and for llama-server (Jinja)."""
