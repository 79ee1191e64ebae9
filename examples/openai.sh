#!/usr/bin/env bash
# Ask an installed model through Ollama's OpenAI-compatible door: examples/openai.sh NAME
set -euo pipefail
host=${OLLAMA_HOST:-127.0.0.1:11434}
curl -sSf "http://${host#http://}/v1/chat/completions" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$1\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}"
echo
