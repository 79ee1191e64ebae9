"""The programs that run a model: one protocol for what they share, and one module for each.

What each is started with differs: an Ollama has a store (`ollama.private.private_ollama`), a
llama-server has one file (`llama_server.private_llama_server`). Both start and stop by
`programs.serving`.
"""
