"""The models of the documents as data, and the resolving of what a user typed.

`models.toml` holds repositories, quants, sampling and prompts; `models` reads it, `quants`
matches a typed quant against file names. No network, no disk beyond the package's own data.
"""
