"""`verify --prompts`: render a built-in set on the running server and compare."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsollama.catalog.formats import FORMATS, PLAIN, THINKING, VARIANTS, Variant
from dsollama.catalog.models import CatalogModel, find_model, load_catalog
from dsollama.errors import MalformedModelfileError, OllamaRefusedError, UsageError
from dsollama.manifest.modelfile_text import Instruction, parse_modelfile
from dsollama.ollama.address import server_address
from dsollama.ollama.server import Server
from dsollama.ollama.shapes import Shown
from dsollama.resources import read_data
from dsollama.templates.variants import go_template

MAX_PROMPT = 2**16
"""Characters that are kept of a prompt; none of the built-in set is as long."""

MAX_MODELFILE = 2**20
"""Characters; what its lines become takes 40 times as much memory."""


@dataclass(frozen=True)
class Check:
    """One conversation in one mode: what the server rendered, and what it should have."""

    name: str
    think: bool | None
    rendered: str
    expected: str

    @property
    def same(self) -> bool:
        """Whether the prompt is DeepSeek's, to the letter."""
        return self.rendered == self.expected


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        name: the model's name on the server.
        model: the catalog's model that it should be.
        variant: the template variant that it should have.
        server: the server's version.
        checks: all that were compared.
        reason: why it differs, in words; empty where nothing differs.
        advice: what to do about it.
    """

    name: str
    model: str
    variant: str
    server: str
    checks: tuple[Check, ...]
    reason: str
    advice: str

    @property
    def wrong(self) -> tuple[Check, ...]:
        """The checks that differ."""
        return tuple(check for check in self.checks if not check.same)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "model": self.name,
            "catalog_model": self.model,
            "variant": self.variant,
            "server": self.server,
            "compared": len(self.checks),
            "different": [vars(check) for check in self.wrong],
            "reason": self.reason,
            "advice": self.advice,
        }


def verify_prompts(name: str, host: str | None, model_key: str | None) -> Report:
    """Render the built-in set as `name` on the server at OLLAMA_HOST.

    Args:
        name: the model's full name on the server.
        host: OLLAMA_HOST as it stands.
        model_key: which model of the catalog it is; None to tell by its name.

    Raises:
        UsageError: it cannot be told which model this is.
        EngineError: Ollama does not answer, or refuses.
    """
    model = find_model(model_key) if model_key else _by_name(name)
    variant = _variant(name, model)
    server = Server(server_address(host))
    version = server.any_version() or "unknown"
    shown = server.show(name)
    checks = tuple(_checks(server, name, model, variant))
    reason, advice = _diagnose(checks, shown, go_template(model.format, variant), name)
    return Report(name, model.key, variant.name, version, checks, reason, advice)


def load_cases() -> list[dict[str, Any]]:
    """Return the built-in conversations with their prompts by format and mode."""
    cases: list[dict[str, Any]] = json.loads(read_data("prompts", "expected.json"))
    return cases


def _by_name(name: str) -> CatalogModel:
    plain = name.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0].lower()
    for model in load_catalog().values():
        if plain == model.name:
            return model
    raise UsageError(
        f"It cannot be told by the name {name!r} which model this is.",
        f"Say it with --model: {', '.join(load_catalog())}.",
    )


def _variant(name: str, model: CatalogModel) -> Variant:
    """Return the variant that a name should have."""
    variants = [VARIANTS[each] for each in model.variants]
    found = [each for each in variants if each.tag_suffix and name.endswith(each.tag_suffix)]
    return found[0] if found else variants[0]


def _reference(case: Mapping[str, Any], model: CatalogModel) -> Mapping[str, str]:
    """Return the case's prompts by variant, in the model's prompt format."""
    reference = FORMATS[model.format].reference
    prompts: Mapping[str, str] | None = case["prompts"].get(reference)
    if prompts is None:
        raise UsageError(
            f"dsollama has no prompts of the format {reference} to compare with.",
            "In a checkout, scripts/write_expected.py writes them.",
        )
    return prompts


def _checks(server: Server, name: str, model: CatalogModel, variant: Variant) -> Iterator[Check]:
    modes: list[tuple[bool | None, str]] = [(None, variant.name)]
    if variant is THINKING:
        modes.append((False, PLAIN.name))
    for case in load_cases():
        for think, mode in modes:
            body: dict[str, Any] = {"model": name, "messages": case["messages"]}
            if case["tools"]:
                body["tools"] = case["tools"]
            if think is not None:
                body["think"] = think
            rendered = _render(server, body)
            expected = _reference(case, model)[mode]
            if case["messages"][0]["role"] != "system":
                expected = model.system + expected
            yield Check(case["name"], think, rendered[:MAX_PROMPT], expected)


def _render(server: Server, body: Mapping[str, Any]) -> str:
    """Return the prompt; where the server refuses, its words, which are no prompt either."""
    try:
        return server.render(body)
    except OllamaRefusedError as error:
        return str(error)


def _diagnose(checks: tuple[Check, ...], shown: Shown, template: str, name: str) -> tuple[str, str]:
    """Return why prompts differ and what to do; two empty texts where none does."""
    wrong = [check for check in checks if not check.same]
    report = "Tell dsollama's issue tracker the server's version, with this command's --json."
    count = f"{len(wrong)} of {len(checks)} prompts differ"
    if not wrong:
        return "", ""
    if _own_template(shown) != template:
        reason = f"the model has another template than dsollama's ({count})."
        return reason, (
            "Install it again with `dsollama install`: the weights are there, nothing is moved."
        )
    if shown.template != template:
        reason = f"Ollama takes the GGUF's own Jinja and not the model's template ({count})."
        return reason, f"Set OLLAMA_GO_TEMPLATE=1 for `ollama serve`. {report}"
    if all(_but_for_the_mark(check) for check in wrong):
        thinks = wrong[0].rendered.endswith("<think>")
        does = "thinks though it must not" if thinks else "does not think though it must"
        return f"{name} {does} ({count}).", report
    return f"{count} in their text.", report


def _own_template(shown: Shown) -> str | None:
    """Return the model's own TEMPLATE; /api/show's `template` is the one that Ollama uses."""
    if len(shown.modelfile) > MAX_MODELFILE:
        return None
    try:
        entries = parse_modelfile(shown.modelfile)
    except MalformedModelfileError:
        return None
    found = [e.value for e in entries if isinstance(e, Instruction) and e.name == "TEMPLATE"]
    return found[0] if found else None


def _but_for_the_mark(check: Check) -> bool:
    """Whether the prompts are alike but for the mark of thinking at their end."""
    bare = [
        text.removesuffix("</think>").removesuffix("<think>")
        for text in (check.rendered, check.expected)
    ]
    return bare[0] == bare[1]
