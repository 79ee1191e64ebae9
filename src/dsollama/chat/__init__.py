"""Conversations with an engine: which name answers, and the streaming of an answer."""
