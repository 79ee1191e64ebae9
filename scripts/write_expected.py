"""Write src/dsollama/prompts/expected.json from the reference of the tests. A test compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conformance import conversations as said  # noqa: E402
from conformance import reference  # noqa: E402

FILE = ROOT / "src" / "dsollama" / "prompts" / "expected.json"
PLAIN = (
    "a question", "a system prompt", "two system prompts", "a late system prompt", "two turns",
    "three turns", "a thought in the history", "two ends of thought", "newlines around a thought",
    "an empty question", "trailing newlines", "japanese", "chinese", "emoji", "html",
    "marks in an answer", "go template in the text", "only a system prompt",
)  # fmt: skip
TOOLS = ("tools and a system prompt", "two calls", "an answer after the output")


def expected() -> str:
    """Return the file's text."""
    cases = [(name, said.PLAIN[name], []) for name in PLAIN]
    for name in TOOLS:
        messages, tools = said.TOOLS[name]
        if messages[0]["role"] != "system":
            messages = [said.system("Be kind."), *messages]
        cases.append((name, messages, tools))
    entries = []
    for name, messages, tools in cases:
        common = {"tools": tools, "prefill": True}
        entries.append(
            {
                "name": name,
                "messages": messages,
                "tools": tools,
                "prompts": {
                    "v3.1": {
                        "plain": reference.v31(messages, **common),
                        "thinking": reference.v31(messages, think=True, **common),
                    },
                    "v3": {"plain": reference.v3(messages, **common)},
                },
            }
        )
    return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(expected(), encoding="utf-8")
