"""The prompts of a running server: rendered, and compared with DeepSeek's."""
