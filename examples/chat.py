"""Ask an installed model through the `ollama` client: python examples/chat.py NAME [PROMPT]."""

import sys

import ollama

name = sys.argv[1]
prompt = sys.argv[2] if len(sys.argv) > 2 else "Hello!"
# The name decides about thinking: `...-thinking` thinks, the plain one does not.
for chunk in ollama.chat(name, messages=[{"role": "user", "content": prompt}], stream=True):
    if chunk.message.thinking:
        print(chunk.message.thinking, end="", file=sys.stderr, flush=True)
    print(chunk.message.content or "", end="", flush=True)
print()
