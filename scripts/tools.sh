# Sourced by the scripts that build and pin: tools from the Python index, by the digests beside this
# file and in an environment of their own, so that nothing of them stays.
#
#   tool_environment FOLDER NAME...   make FOLDER with the packages of tools/NAME.txt
#
# Only wheels are taken: a source package would fetch what builds it, and that without digests.

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tools

tool_environment() {
  local folder=$1 name requirements=()
  shift
  for name in "$@"; do requirements+=(--requirement "$tools/$name.txt"); done
  "${PYTHON:-python3}" -m venv "$folder" || return
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes --only-binary :all: "${requirements[@]}"
}
