#!/usr/bin/env bash
# Install from a script and print the names that can now be run: examples/install.sh QUANT
set -euo pipefail
dsollama install "$1" --yes --json | python3 -c '
import json, sys
for line in sys.stdin:
    event = json.loads(line)
    if event["event"] == "installed":
        print(*event["names"], sep="\n")
'
