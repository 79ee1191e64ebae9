"""The programs that run a model: one protocol for what they share, and one module for each."""
