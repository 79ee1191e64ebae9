"""The fixed Jinja of each prompt format, rendered as transformers renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dsollama.catalog.formats import FORMATS
from dsollama.errors import UsageError
from dsollama.resources import read_template


def jinja_template(prompt_format: str) -> str:
    """Return the Jinja of a prompt format, as `--chat-template-file` of llama-server takes it."""
    return read_template(FORMATS[prompt_format].jinja)


def render_jinja(
    prompt_format: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    thinking: bool,
) -> str:
    """Return the prompt, without BOS, which the engines add.

    Raises:
        UsageError: the messages are not what a chat's messages are.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # prompts are no HTML
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    try:
        return environment.from_string(jinja_template(prompt_format)).render(
            messages=messages,
            tools=tools or None,
            bos_token="",
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
    except (TemplateError, TypeError, AttributeError) as error:
        raise UsageError(
            f"These messages cannot be rendered: {error}.",
            "They are a JSON list of objects with role and content, as /api/chat takes them.",
        ) from error
