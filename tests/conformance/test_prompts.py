"""Every conversation through every engine, against the independent reference: zero differences.

Where an engine cannot render what the reference says, the difference is named below, told in
docs/templates.md, and pinned, so that a new version of the engine that mends it is noticed too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance import conversations as said
from conformance import reference
from dsollama.catalog.formats import FORMATS, VARIANTS
from dsollama.catalog.models import find_model
from dsollama.engines.llama_server import private_llama_server
from dsollama.engines.protocol import Chat
from dsollama.install.planning import make_plan
from dsollama.install.request import InstallRequest
from dsollama.install.to_store import execute
from dsollama.ollama.private import free_port, private_environment, private_ollama
from dsollama.prompts.render import render as render_by
from dsollama.resources import read_template
from dsollama.settings import Settings
from dsollama.templates.variants import go_template
from dsollama.testing.loopback_hub import HubRepository, LoopbackHub
from dsollama.testing.tiny_model import BOS, tiny_model, write_gguf

from conftest import ROOT, TERMINUS, without_engine

FORMAT = {key: FORMATS[find_model(key).format] for key in ("v3.1-terminus", "v3-0324", "r1-0528")}
REFERENCE = {key: reference.RENDERERS[each.reference] for key, each in FORMAT.items()}
JINJA = {key: each.jinja for key, each in FORMAT.items()}
MODES: list[tuple[str, str, bool | None, bool]] = [
    # model, suffix of the name, `think` of the request, whether the prompt thinks
    ("v3.1-terminus", "", None, False),
    ("v3.1-terminus", "", False, False),
    ("v3.1-terminus", "-thinking", None, True),
    ("v3.1-terminus", "-thinking", True, True),
    ("v3.1-terminus", "-thinking", False, False),
    ("v3-0324", "", None, False),
    ("v3-0324", "", False, False),
    ("r1-0528", "", None, True),
    ("r1-0528", "", True, True),
    ("r1-0528", "", False, False),
]
Case = tuple[Sequence[said.Message], Sequence[dict[str, Any]]]


def every_case() -> dict[str, Case]:
    return {
        **{name: (messages, []) for name, messages in said.PLAIN.items()},
        **said.TOOLS,
        **{name: (messages, []) for name, messages in said.PREFILLED.items()},
    }


@dataclass(frozen=True)
class Prompts:
    """An Ollama with every catalog model, and what it renders."""

    address: str
    names: dict[str, str]

    def render(self, model: str, suffix: str, think: bool | None, case: Case, **more: Any) -> str:
        body: dict[str, Any] = {
            "model": self.names[model] + suffix,
            "messages": case[0],
            "stream": False,
            "_debug_render_only": True,
            **more,
        }
        if case[1]:
            body["tools"] = case[1]
        if think is not None:
            body["think"] = think
        answer = requests.post(f"{self.address}/api/chat", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        rendered: str = answer.json()["_debug_info"]["rendered_template"]
        return rendered


@pytest.fixture(scope="session")
def prompts(ollama_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompts]:
    """Ollama 0.33.0 with every model of the catalog, each with its Jinja in the GGUF."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "home").mkdir()
    names = {}
    for key, jinja in JINJA.items():
        file = folder / f"{key}-UD-Q2_K_XL.gguf"
        write_gguf(file, tiny_model(read_template(jinja)))
        repository = HubRepository()
        repository.add(file.name, file)
        with LoopbackHub({find_model(key).repositories[0]: repository}) as hub:
            wanted = Settings(store=folder / "models", endpoint=hub.endpoint)
            request = InstallRequest("UD-Q2_K_XL", wanted, model=key)
            plan = make_plan(request, lambda _event: None)
            names[key] = execute(plan, lambda _event: None, connections=2).names[0]
    environment = private_environment(folder / "home", folder / "models", free_port(), os.environ)
    with private_ollama(ollama_program, environment, folder / "ollama.log") as address:
        yield Prompts(address, names)


def expected(model: str, thinks: bool, case: Case, *, prefill: bool) -> str:
    messages = list(case[0])
    default = find_model(model).system
    if default and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": default})
    return REFERENCE[model](messages, think=thinks, tools=case[1], prefill=prefill)


def compare(
    render: Callable[[Case], str], wanted: Callable[[Case], str], cases: dict[str, Case]
) -> dict[str, tuple[str, str]]:
    """Return (rendered, wanted) of every case that differs."""
    differences = {}
    for name, case in cases.items():
        rendered, want = render(case), wanted(case)
        if rendered != want:
            differences[name] = (rendered, want)
    return differences


@pytest.mark.engines
@pytest.mark.parametrize(("model", "suffix", "think", "thinks"), MODES)
def test_ollama_feeds_the_model_what_deepseek_asks_for(
    model: str,
    suffix: str,
    think: bool | None,
    thinks: bool,
    prompts: Prompts,
    record_property: Callable[[str, object], None],
) -> None:
    cases = every_case()
    differences = compare(
        lambda case: prompts.render(model, suffix, think, case),
        lambda case: expected(model, thinks, case, prefill=True),
        cases,
    )
    assert differences == {}
    record_property("matrix", f"Ollama       {model}{suffix} think={think}: {len(cases)} cases")


@pytest.mark.engines
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("{{ else }}</think>{{ end }}{{ end -}}", "{{ end }}{{ end -}}"),  # a missing </think>
        ("<｜User｜>{{ .Content -}}", "<｜User｜>{{ .Content }}\n{{- /* */ -}}\n"),  # harmless
        ("{{- if $user }}<｜Assistant｜>", "{{- if $user }}\n<｜Assistant｜>"),  # a newline
    ],
)
def test_a_fault_in_a_template_is_found(right: str, wrong: str, prompts: Prompts) -> None:
    template = go_template("v3.1", VARIANTS["thinking"])
    assert right in template
    made = requests.post(
        f"{prompts.address}/api/create",
        json={
            "model": "faulty",
            "from": prompts.names["v3.1-terminus"] + "-thinking",
            "template": template.replace(right, wrong),
            "stream": False,
        },
        timeout=300,
    )
    assert made.status_code == 200, made.text
    faulty = Prompts(prompts.address, {"v3.1-terminus": "faulty"})
    differences = compare(
        lambda case: faulty.render("v3.1-terminus", "", False, case),
        lambda case: expected("v3.1-terminus", False, case, prefill=True),
        every_case(),
    )
    assert bool(differences) == ("*/" not in wrong)


PROPERTIES = {
    "zeta": {"type": "string", "default": "x"},
    "alpha": {"type": "string", "minLength": 2},
}
ORDERED = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {
            "required": ["zeta"],
            "properties": {
                "outer": {"type": "object", "properties": PROPERTIES},
                "inner": {"type": "string"},
            },
            "type": "object",
            "additionalProperties": False,
        },
    },
}
NAMED_DIFFERENCES: dict[str, tuple[Case, str]] = {
    "two of one role are joined": (
        ([said.user("a"), said.user("b")], []),
        "<｜User｜>a\n\nb<｜Assistant｜>",
    ),
    "arguments are sorted": (
        (
            [said.user("x"), said.calls(("f", {"b": 1, "a": 2.0, "c": 2**53 + 1})), said.tool("y")],
            [],
        ),
        'f<｜tool▁sep｜>{"a": 2, "b": 1, "c": 9007199254740992}<｜tool▁call▁end｜>',
    ),
    "top-level properties are sorted, nested ones are not, other keys are dropped": (
        ([said.user("x")], [ORDERED]),
        (
            'Parameters: {"type": "object", "properties": {"inner": {"type": "string"}, "outer": '
            '{"type": "object", "properties": {"zeta": {"type": "string"}, "alpha": {"type": '
            '"string"}}}}, "required": ["zeta"]}\n'
        ),
    ),
    "letters beyond U+FFFF stay themselves": (
        (
            [said.user("x")],
            [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "d",
                        "parameters": {
                            "type": "object",
                            "properties": {"a": {"type": "string", "description": "言🎉\x07\x7f"}},
                        },
                    },
                }
            ],
        ),
        '"description": "\\u8a00🎉\\u0007\x7f"',
    ),
}
"""What docs/templates.md names, as Ollama 0.33.0 renders it: a version that mends it is noticed."""


@pytest.mark.engines
@pytest.mark.parametrize("name", NAMED_DIFFERENCES)
def test_the_named_differences_are_as_told(name: str, prompts: Prompts) -> None:
    case, part = NAMED_DIFFERENCES[name]
    rendered = prompts.render("v3.1-terminus", "", None, case)
    assert part in rendered
    assert rendered != expected("v3.1-terminus", False, case, prefill=True)


def jinja_environment() -> jinja2.Environment:
    """As transformers' apply_chat_template makes it."""
    import json

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, undefined=jinja2.Undefined
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment


def official_only(cases: dict[str, Case]) -> dict[str, Case]:
    """Leave out prefills, whose end of sentence DeepSeek's own template prints."""
    return {name: case for name, case in cases.items() if name not in said.PREFILLED}


@pytest.mark.parametrize("alias", ["thinking", "enable_thinking"])
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("model", ["v3.1-terminus", "v3-0324"])
def test_our_jinja_says_the_same(
    model: str, thinks: bool, alias: str, record_property: Callable[[str, object], None]
) -> None:
    template = jinja_environment().from_string(read_template(JINJA[model]))
    cases = every_case()
    differences = compare(
        lambda case: template.render(
            messages=case[0], tools=case[1] or None, bos_token="", add_generation_prompt=True,
            **{alias: thinks},
        ),
        lambda case: REFERENCE[model](case[0], think=thinks, tools=case[1], ascii_only=False),
        cases,
    )  # fmt: skip
    assert differences == {}
    record_property("matrix", f"jinja2       {model} {alias}={thinks}: {len(cases)} cases")


def test_enable_thinking_wins_over_thinking() -> None:
    template = jinja_environment().from_string(read_template("v3.1.jinja"))
    render = template.render(
        messages=[said.user("x")], bos_token="", add_generation_prompt=True,
        thinking=True, enable_thinking=False,
    )  # fmt: skip
    assert render == "<｜User｜>x<｜Assistant｜></think>"


@pytest.mark.parametrize("name", ["v3.1.jinja", "v3-0324.jinja"])
def test_no_jinja_splits_with_two_arguments_or_ends_in_a_newline(name: str) -> None:
    text = read_template(name)
    assert ", 1)" not in text
    assert not text.endswith("\n")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """llama-server on each tiny model; addresses by model."""
    program = ROOT / "llama.cpp" / "llama-server"
    if not program.is_file():
        without_engine("llama.cpp/llama-server is not built: run `make engines`")
    folder = tmp_path_factory.mktemp("llama-server")
    environment = dict(os.environ) | {"LLAMA_ARG_CTX_SIZE": "20000"}
    with ExitStack() as running:
        addresses = {}
        for model in ("v3.1-terminus", "v3-0324"):
            file = folder / f"{model}.gguf"
            write_gguf(file, tiny_model(read_template(JINJA[model])))
            server = private_llama_server(
                program, file, free_port(), environment, folder / f"{model}.log"
            )
            addresses[model] = running.enter_context(server)
        yield addresses


@pytest.mark.engines
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("model", ["v3.1-terminus", "v3-0324"])
def test_llama_server_says_the_same(
    model: str,
    thinks: bool,
    servers: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    def render(case: Case) -> str:
        body = {
            "messages": case[0],
            "chat_template_kwargs": {"enable_thinking": thinks},
            **({"tools": case[1]} if case[1] else {}),
        }
        answer = requests.post(f"{servers[model]}/apply-template", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        prompt: str = answer.json()["prompt"]
        return prompt.removeprefix(BOS)

    cases = official_only(every_case())
    differences = compare(
        render,
        lambda case: REFERENCE[model](case[0], think=thinks, tools=case[1], ascii_only=False),
        cases,
    )
    assert differences == {}
    record_property("matrix", f"llama-server {model} thinking={thinks}: {len(cases)} cases")


@pytest.mark.engines
def test_template_render_asks_a_llama_server(servers: dict[str, str]) -> None:
    messages = [said.system("Be kind."), said.user("x")]
    for think in (False, True):
        tools = [] if think else [said.WEATHER]
        asked = Chat("", messages, tools, think)
        prompt = render_by("llama-server", find_model("v3.1"), asked, servers["v3.1-terminus"])
        assert prompt.removeprefix(BOS) == reference.v31(messages, think=think, tools=tools)


@pytest.mark.engines
def test_bos_is_there_exactly_once_on_llama_server(servers: dict[str, str]) -> None:
    """In tokens: BOS, User, the byte x, Assistant and, for V3.1, </think>."""
    for model, count in (("v3.1-terminus", 5), ("v3-0324", 4)):
        body = {
            "messages": [said.user("x")],
            "chat_template_kwargs": {"enable_thinking": False},
            "max_tokens": 1,
        }
        answer = requests.post(f"{servers[model]}/v1/chat/completions", json=body, timeout=300)
        assert answer.json()["usage"]["prompt_tokens"] == count


@pytest.mark.engines
@pytest.mark.parametrize(
    ("model", "suffix", "count"),
    [("v3.1-terminus", "", 5), ("v3.1-terminus", "-thinking", 5), ("r1-0528", "", 4)],
)
def test_openai_clients_get_the_same_prompt(
    model: str, suffix: str, count: int, prompts: Prompts
) -> None:
    """The prompt is not to be seen there, but its tokens are: BOS once, and nothing more."""
    body = {"model": prompts.names[model] + suffix, "messages": [said.user("x")], "max_tokens": 1}
    answer = requests.post(f"{prompts.address}/v1/chat/completions", json=body, timeout=300)
    assert answer.json()["usage"]["prompt_tokens"] == count


@pytest.mark.engines
@pytest.mark.parametrize("model", ["v3.1-terminus", "v3-0324"])
@pytest.mark.parametrize("tools", [[], [said.WEATHER]], ids=["no tools", "tools"])
def test_a_name_that_never_thinks_refuses_to(
    model: str, tools: list[dict[str, Any]], prompts: Prompts
) -> None:
    body = {"model": prompts.names[model], "messages": [said.user("x")], "think": True}
    answer = requests.post(f"{prompts.address}/api/chat", json=body | {"tools": tools}, timeout=300)
    assert (answer.status_code, "does not support thinking" in answer.text) == (400, True)


contents = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00")
    | st.sampled_from("<>/think｜ \n\t「」🎉"),
    max_size=40,
) | st.sampled_from(["", "</think>", "<think>a</think>b", "<｜User｜>", "<｜end▁of▁sentence｜>"])
arguments = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8),
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | contents,
    max_size=4,
)


@st.composite
def conversations(draw: st.DrawFn) -> Case:
    """A conversation that never has two of one role in a row, for Ollama would join them."""
    messages: list[said.Message] = []
    previous = ""
    for _ in range(draw(st.integers(1, 7))):
        roles = [role for role in ("system", "user", "assistant", "calls") if role != previous]
        role = draw(st.sampled_from(roles if messages else ["system", "user"]))
        if role == "calls":
            if previous in {"assistant", "calls", "system"}:
                continue
            several = draw(st.lists(arguments, min_size=1, max_size=3))
            messages.append(
                said.calls(*(("search", dict(sorted(each.items()))) for each in several))
            )
            messages += [said.tool(draw(contents)) for _ in several]
            previous = "tool"
        else:
            messages.append({"role": role, "content": draw(contents)})
            previous = role
    if messages[-1]["role"] == "assistant":
        messages.append(said.user(draw(contents)))
    return messages, draw(st.sampled_from([[], [said.WEATHER], [said.SEARCH, said.CLOCK]]))


@pytest.mark.engines
@pytest.mark.parametrize(("model", "suffix", "think", "thinks"), MODES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=conversations())
def test_generated_conversations_render_as_the_reference_says(
    model: str, suffix: str, think: bool | None, thinks: bool, prompts: Prompts, case: Case
) -> None:
    rendered = prompts.render(model, suffix, think, case)
    assert rendered == expected(model, thinks, case, prefill=True)


def test_there_are_enough_named_conversations() -> None:
    assert len(every_case()) >= 60
    assert find_model("v3.1-terminus").repositories[0] == TERMINUS
