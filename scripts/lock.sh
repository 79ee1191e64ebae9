#!/usr/bin/env bash
# Write requirements.lock and scripts/tools/*.txt: every package of the project, of its development
# and of the tools that build the engines, pinned with hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/tools.sh
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
tool_environment "$tool" uv

pin() { # OUTPUT INPUT...
  local output=$1
  shift
  "$tool/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
    "$@" --output-file "$output"
}

pin requirements.lock pyproject.toml --group dev
for input in scripts/tools/*.in; do pin "${input%.in}.txt" "$input"; done
