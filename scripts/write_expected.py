"""Write src/dsollama/prompts/expected.json from the reference of the tests. A test compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conformance import conversations as said  # noqa: E402
from conformance import reference  # noqa: E402
from dsollama.catalog.formats import FORMATS, PLAIN, PromptFormat  # noqa: E402
from dsollama.catalog.models import load_catalog  # noqa: E402

FILE = ROOT / "src" / "dsollama" / "prompts" / "expected.json"
QUESTIONS = (
    "a question", "a system prompt", "two system prompts", "a late system prompt", "two turns",
    "three turns", "a thought in the history", "two ends of thought", "newlines around a thought",
    "an empty question", "trailing newlines", "japanese", "chinese", "emoji", "html",
    "marks in an answer", "go template in the text", "only a system prompt",
)  # fmt: skip
TOOLS = ("tools and a system prompt", "two calls", "an answer after the output")


def expected() -> str:
    """Return the file's text."""
    cases = [(name, said.PLAIN[name], []) for name in QUESTIONS]
    for name in TOOLS:
        messages, tools = said.TOOLS[name]
        if messages[0]["role"] != "system":
            messages = [said.system("Be kind."), *messages]
        cases.append((name, messages, tools))
    entries = []
    for name, messages, tools in cases:
        entries.append(
            {
                "name": name,
                "messages": messages,
                "tools": tools,
                "prompts": {
                    each.name: prompts(each, messages, tools)
                    for each in FORMATS.values()
                    if not each.same_as
                },
            }
        )
    return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"


def prompts(
    prompt_format: PromptFormat, messages: list[said.Message], tools: list[dict[str, Any]]
) -> dict[str, str]:
    """Return one conversation's prompts by variant: those that the catalog's models have."""
    names = {PLAIN.name: None}
    for model in load_catalog().values():
        if FORMATS[model.format].reference == prompt_format.name:
            names |= dict.fromkeys(model.variants)
    render = reference.RENDERERS[prompt_format.reference]
    return {
        name: render(messages, tools=tools, prefill=True, think=name != PLAIN.name)
        for name in names
    }


if __name__ == "__main__":
    FILE.write_text(expected(), encoding="utf-8")
