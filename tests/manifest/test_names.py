import posixpath
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama.errors import InvalidNameError
from dsollama.manifest.names import ModelName, parse_name

# What Ollama 0.33.0's model.ParseName made of each (run): its Filepath() and DisplayShortest().
ACCEPTED = {
    "model": ("registry.ollama.ai/library/model/latest", "model:latest"),
    "model:latest": ("registry.ollama.ai/library/model/latest", "model:latest"),
    "a/b": ("registry.ollama.ai/a/b/latest", "a/b:latest"),
    "h/a/b": ("h/a/b/latest", "h/a/b:latest"),
    "h:80/a/b:t": ("h:80/a/b/t", "h:80/a/b:t"),
    "h.x/n/m": ("h.x/n/m/latest", "h.x/n/m:latest"),
    "m.": ("registry.ollama.ai/library/m./latest", "m.:latest"),
    "n-x/m": ("registry.ollama.ai/n-x/m/latest", "n-x/m:latest"),
    "_/_": ("registry.ollama.ai/_/_/latest", "_/_:latest"),
}
REFUSED = [
    "a:b:c",
    "a/b:c/d",
    ":t",
    "m:",
    "/m",
    "n/",
    "h//m",
    "//h/n/m",
    "a/b/c/d",
    "-m",
    ".m",
    "n.x/m",
    "m@d",
    "m:t@d",
    "m t",
    "ü",
    "h/n:x/m:t",
    "..",
    "a/..",
    "../../m",
    "m\n",
    "m:.t",
    "m:..",
    "m\0",
    "",
]
TRICKY = string.ascii_letters[:3] + "0_-.:/@ \\\n\0ü%~"


def is_valid_in_ollama(text: str) -> bool:
    """Follow types/model/name.go of Ollama 0.33.0: ParseNameBare, Merge and isValidPart."""
    tag, namespace, host = "latest", "library", "registry.ollama.ai"
    if text.rfind(":") > text.rfind("/"):
        text, _, tag = text.rpartition(":")
    rest, slash, model = text.rpartition("/")
    if slash:
        rest, slash, namespace = rest.rpartition("/")
        host = rest if slash else host
    kinds = ((".:", 350, host), ("", 80, namespace), (".", 80, model), (".", 80, tag))
    return all(
        len(part) <= most and re.fullmatch(f"[A-Za-z0-9_][A-Za-z0-9_{also}-]*", part) is not None
        for also, most, part in kinds
    )


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_name_is_read_as_ollama_reads_it(text: str) -> None:
    name = parse_name(text)
    assert (str(name.path), str(name)) == ACCEPTED[text]
    assert is_valid_in_ollama(text)


@pytest.mark.parametrize("text", REFUSED)
def test_a_name_that_ollama_refuses_is_refused(text: str) -> None:
    assert not is_valid_in_ollama(text)
    with pytest.raises(InvalidNameError, match="not a name that Ollama accepts"):
        parse_name(text)


def test_the_longest_parts_are_accepted_and_one_letter_more_is_not() -> None:
    full = ["h" * 350, "n" * 80, "m" * 80, "t" * 80]
    assert parse_name("{}/{}/{}:{}".format(*full)) == ModelName(full[2], full[3], full[1], full[0])
    for index in range(4):
        parts = [part + part[0] * (place == index) for place, part in enumerate(full)]
        with pytest.raises(InvalidNameError):
            parse_name("{}/{}/{}:{}".format(*parts))


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("Registry.Ollama.AI/Library/Foo:Q2", "Foo:Q2"),
        ("Registry.Ollama.AI/Team/Foo:Q2", "Team/Foo:Q2"),
        ("h/Library/Foo:Q2", "h/Library/Foo:Q2"),
        ("foo", "foo:latest"),
    ],
)
def test_a_name_is_shown_as_ollama_list_shows_it(text: str, listed: str) -> None:
    assert parse_name(text).listed == listed
    assert parse_name(text).folded == parse_name(parse_name(text).listed.lower()).folded


# Ollama drops a scheme; a name that is going to be written has no use for one.
def test_an_address_with_a_scheme_is_refused() -> None:
    with pytest.raises(InvalidNameError):
        parse_name("https://registry.ollama.ai/library/m")


def test_a_tag_is_replaced_and_checked() -> None:
    name = parse_name("h:80/n/m:old")
    assert name.with_tag("q2_k_xl-thinking") == ModelName("m", "q2_k_xl-thinking", "n", "h:80")
    assert parse_name("m").with_tag("t") == ModelName("m", "t")


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "a:b", "x/y:z", "../../t", "t\n", "t" * 81])
@pytest.mark.parametrize("text", ["m", "n/m", "h/n/m", "h:80/n/m"])
def test_a_tag_that_ollama_refuses_is_refused(text: str, tag: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_name(text).with_tag(tag)


@given(st.text(TRICKY, max_size=12) | st.text(max_size=40))
def test_what_is_a_name_is_what_ollama_takes_for_one(text: str) -> None:
    try:
        parse_name(text)
        accepted = True
    except InvalidNameError:
        accepted = False
    assert accepted == ("://" not in text and is_valid_in_ollama(text))


PARTS = st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.:-]{0,9}", fullmatch=True) | st.just("..")


@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_a_parsed_name_stays_below_manifests_and_reads_back_from_its_text(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidNameError:
        return
    path = posixpath.join("/store/manifests", str(name.path))
    assert posixpath.normpath(path) == path
    assert len(name.path.parts) == 4
    assert ".." not in name.path.parts
    assert parse_name(str(name)) == name
