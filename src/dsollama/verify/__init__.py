"""Proving that the user's own Ollama feeds a model the prompts that DeepSeek asked for.

`expected.json` holds conversations and the prompts that an independent reference renders for them
(tests/conformance/reference.py; a test writes the file again and compares).
"""
