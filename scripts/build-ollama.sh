#!/usr/bin/env bash
# Build the pinned Ollama, once per machine, and put it at .engines/bin/ollama with llama.cpp's
# programs in .engines/lib/ollama, where it looks for them. Run llama.cpp/build.sh first.
#
# The module is compared with the digest below before it is built. Its go.sum, which is a part of
# it, has the digests of everything that it needs; -mod=readonly refuses what is not in there. So
# no setting of Go's (GOPROXY, GOSUMDB, GONOSUMDB, GOPRIVATE, GOFLAGS) lets other code in.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/tools.sh

version=0.33.0
module=github.com/ollama/ollama
module_sum=h1:eBW81lwwaxeIDaw9U17xbqpttik6QBn7sVavoRfzyqk=  # of the module, as in a go.sum
oldest_go=1.26  # its go.mod asks for it
llama=$(cd "$(dirname "$(readlink -f llama.cpp/llama-server)")" && pwd)
engines=${XDG_CACHE_HOME:-$HOME/.cache}/dsollama/engines
home=$engines/ollama-$version-$(basename "$(dirname "$llama")")

go_is_new_enough() {
  local found
  found=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return
  [ "$(printf '%s\n' "$oldest_go" "${found#go}" | sort -V | head -n 1)" = "$oldest_go" ]
}

module_folder() { # print where the module was unpacked; fail if it is not the pinned one
  local answer
  answer=$(go mod download -json "$module@v$version") || { echo "$answer" >&2; return 1; }
  "${PYTHON:-python3}" - "$module_sum" "$answer" <<'PYTHON'
import json, sys
pinned, answer = sys.argv[1], json.loads(sys.argv[2])
if answer["Sum"] != pinned:
    sys.exit(f"{answer['Path']} {answer['Version']} is {answer['Sum']}, not the pinned {pinned}")
print(answer["Dir"])
PYTHON
}

if [ ! -x "$home/bin/ollama" ]; then
  mkdir -p "$engines"
  work=$(mktemp -d "$engines/building.XXXXXX")
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  if ! go_is_new_enough; then
    tool_environment "$work/tools" go
    PATH=$work/tools/bin:$PATH
  fi
  # Module and build caches of its own: nothing stays in the user's, and nothing comes from there.
  export GOMODCACHE=$work/modules GOCACHE=$work/cache GOTMPDIR=$work
  export GOTOOLCHAIN=local GOWORK=off GOFLAGS=-mod=readonly
  unpacked=$(cd "$work" && module_folder)
  echo "Ollama $version: building (some 3 minutes on 2 cores)"
  (cd "$unpacked" && go build -trimpath -o "$work/home/bin/ollama" \
    -ldflags "-s -w -X $module/version.Version=$version" .) >"$work/log" 2>&1 ||
    { tail -n 40 "$work/log" >&2; exit 1; }
  mkdir -p "$work/home/lib/ollama"
  for program in llama-server llama-quantize; do cp "$llama/$program" "$work/home/lib/ollama/"; done
  rm -rf "$home" && mv "$work/home" "$home"
fi
ln -sfn "$home" .engines
echo "Ollama $version: ready at .engines/bin/ollama"
