"""The running Ollama: where it answers, its client, and a private one for rehearsals and tests.

Never writes the store.
"""
