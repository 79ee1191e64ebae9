"""An independent renderer of DeepSeek's prompts, written from the formats in words.

Source: DeepSeek's model cards and the chat templates that ship in tokenizer_config.json, as told in
docs/templates.md. Never written from our templates: it is what they are measured against. BOS is
left out, because the engines add it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]

EOS = "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
CALLS, END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, END_CALL, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
OUTPUTS, END_OUTPUTS = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT, END_OUTPUT = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"

_V31_FORM = (
    f"{CALLS}{CALL}tool_call_name{SEP}tool_call_arguments{END_CALL}"
    f"{{additional_tool_calls}}{END_CALLS}"
)
_V3_FORM = (
    f"{CALLS}{CALL}function{SEP}tool_call_name\n```json\ntool_call_arguments\n```{END_CALL}"
    f"{{additional_tool_calls}}{END_CALLS}"
)
_V31_CHAIN = "chain them directly without separators or spaces"
_V3_CHAIN = "put one newline between them"


def v31(
    messages: Sequence[Message],
    *,
    think: bool = False,
    tools: Sequence[Tool] = (),
    prefill: bool = False,
    ascii_only: bool = True,
) -> str:
    """Render for V3.1 and V3.1-Terminus.

    `prefill` says that the engine lets the model go on with a last assistant message, which then
    has no end of sentence. With tools there is no thinking. `ascii_only` is json.dumps's
    ensure_ascii for the tools' parameters; the model card's code has its default.
    """
    think = think and not tools
    parts = [_opening(messages, tools, _V31_FORM, _V31_CHAIN, ascii_only=ascii_only)]
    turns = [message for message in messages if message["role"] != "system"]
    before = ""
    for number, message in enumerate(turns):
        last = prefill and message is messages[-1] and number == len(turns) - 1
        if message["role"] == "user":
            parts.append(USER + message["content"])
        elif message["role"] == "tool":
            parts.append(OUTPUT + message["content"] + END_OUTPUT)
        else:
            calls = message.get("tool_calls") or []
            goes_on = last and not calls
            if before == "user":
                parts.append(ASSISTANT + ("<think>" if think and goes_on else "</think>"))
            content = message.get("content") or ""
            if not calls and before != "tool" and "</think>" in content:
                content = content[content.index("</think>") + len("</think>") :]
            parts.append(content)
            if calls:
                inner = (
                    f"{CALL}{name}{SEP}{arguments}{END_CALL}" for name, arguments in _each(calls)
                )
                parts.append(CALLS + "".join(inner) + END_CALLS)
            parts.append("" if goes_on else EOS)
        before = message["role"]
    if before == "user":
        parts.append(ASSISTANT + ("<think>" if think else "</think>"))
    return "".join(parts)


def v3(
    messages: Sequence[Message],
    *,
    think: bool = False,
    tools: Sequence[Tool] = (),
    prefill: bool = False,
    ascii_only: bool = True,
) -> str:
    """Render for V3-0324 and R1-0528, the other dialect."""
    parts = [_opening(messages, tools, _V3_FORM, _V3_CHAIN, ascii_only=ascii_only)]
    turns = [message for message in messages if message["role"] != "system"]
    before, open_outputs, continued = "", False, False
    for number, message in enumerate(turns):
        last = prefill and message is messages[-1] and number == len(turns) - 1
        role = message["role"]
        if role == "tool":
            parts.append("\n" if open_outputs else OUTPUTS)
            parts.append(OUTPUT + message["content"] + END_OUTPUT)
            open_outputs = True
            before = role
            continue
        answers_tool = open_outputs
        if open_outputs:
            parts.append(END_OUTPUTS)
            open_outputs = False
        if role == "user":
            parts.append(USER + message["content"] + ASSISTANT)
        else:
            calls = message.get("tool_calls") or []
            content = message.get("content") or ""
            if not calls and not answers_tool:
                content = content.rsplit("</think>", 1)[-1]
            parts.append(content)
            if calls:
                inner = (
                    f"{CALL}function{SEP}{name}\n```json\n{arguments}\n```{END_CALL}"
                    for name, arguments in _each(calls)
                )
                parts.append(CALLS + "\n".join(inner) + END_CALLS)
            continued = last and not calls
            parts.append("" if continued else EOS)
        before = role
    if open_outputs:
        parts.append(END_OUTPUTS)
    if before not in {"user", "tool"} and not continued:
        parts.append(ASSISTANT)
    return "".join(parts)


RENDERERS = {"v3.1": v31, "v3-0324": v3}
"""By prompt format: those of `dsollama.catalog.formats` that have files of their own."""


def _opening(
    messages: Sequence[Message], tools: Sequence[Tool], form: str, chain: str, *, ascii_only: bool
) -> str:
    """The system prompts, and after them the tools."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    if not tools:
        return system
    described = "".join(
        f"\n\n### {tool['function']['name']}\n"
        f"Description: {tool['function'].get('description', '')}\n\n"
        f"Parameters: {json.dumps(tool['function']['parameters'], ensure_ascii=ascii_only)}"
        for tool in tools
    )
    block = (
        "## Tools\nYou have access to the following tools:"
        f"{described}\n\n"
        "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
        f"{form}\n\n"
        "Where:\n"
        "- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
        "Schema\n"
        f"- For multiple tool calls, {chain}"
    )
    return f"{system}\n\n{block}" if system else block


def _each(calls: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for call in calls:
        arguments = call["function"]["arguments"]
        text = (
            arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        )
        found.append((call["function"]["name"], text))
    return found
