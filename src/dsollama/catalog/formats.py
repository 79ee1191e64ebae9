"""The prompt formats and the template variants that a catalog model may have: a table of each.

A new format is one entry here and its files, which are found by its name:
templates/NAME.body.gotmpl for Ollama, templates/NAME.jinja for llama-server, and the prompts under
NAME in prompts/expected.json, which `scripts/write_expected.py` writes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptFormat:
    """How a model wants its prompts.

    Attributes:
        name: what `format` of models.toml takes.
        same_as: name of the format whose files it uses; empty if it has files of its own.
    """

    name: str
    same_as: str = ""

    @property
    def reference(self) -> str:
        """Under which name prompts/expected.json has the prompts, and reference.py the renderer."""
        return self.same_as or self.name

    @property
    def body(self) -> str:
        """File name of the Go template without its head."""
        return f"{self.reference}.body.gotmpl"

    @property
    def jinja(self) -> str:
        """File name of the Jinja template."""
        return f"{self.reference}.jinja"


FORMATS = {
    each.name: each
    for each in (
        PromptFormat("v3.1"),
        PromptFormat("v3-0324"),
        PromptFormat("r1-0528", same_as="v3-0324"),
    )
}


@dataclass(frozen=True)
class Variant:
    """One template variant; the head of its Go template is templates/NAME.head.gotmpl.

    Attributes:
        name: what `variants` of models.toml and `--variants` take.
        tag_suffix: what it adds to the tag; empty for the plain name.
        meaning: one line for people.
    """

    name: str
    tag_suffix: str
    meaning: str

    @property
    def head(self) -> str:
        """File name of the head."""
        return f"{self.name}.head.gotmpl"


PLAIN = Variant("plain", "", "does not think")
THINKING = Variant("thinking", "-thinking", "thinks unless the request says think: false")
ALWAYS_THINKING = Variant("always-thinking", "", "thinks in every answer")
VARIANTS = {each.name: each for each in (PLAIN, THINKING, ALWAYS_THINKING)}
