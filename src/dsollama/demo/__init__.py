"""The rehearsal: a tiny real model, a loopback Hub, and the very install that users run.

`tiny_model` makes a GGUF of DeepSeek's architecture whose answers are known, `loopback_hub`
serves it as Hugging Face does, `rehearsal` runs the demo. The tests and benchmarks use the same.
"""
