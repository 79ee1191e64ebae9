"""Proving what was installed: the files of the store, and the prompts of the running Ollama.

Files: `plan` says what to look at, `check` does it, `blocks` finds a damaged block by the ledger,
`sources` gets its bytes again, `repair` writes them. Prompts: `prompts`, `render`, `engines`.

`expected.json` holds conversations and the prompts that an independent reference renders for them
(tests/conformance/reference.py; a test writes the file again and compares).
"""
