"""Conversations over the `ollama` client: which name answers, and the streaming of an answer."""
