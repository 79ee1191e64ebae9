"""GGUF files: headers, shard sets, the merged layout, and llama-gguf-split as the other merger.

Knows neither the network nor Ollama. `header` reads, `encode` writes, `shards` finds which
files belong together, `merge` says where each byte of the merged file comes from, and
`split_program` runs llama.cpp's own merger.
"""
