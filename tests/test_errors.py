import inspect
import re

import pytest

from dsollama import errors
from dsollama.errors import DsollamaError

LINE = re.compile(r"^(?P<lead>[ │├└─]+)(?P<name>\w+Error)(?P<rest>.*)$", re.MULTILINE)


def drawn_tree() -> dict[str, tuple[str | None, int | None, str | None]]:
    """Return (parent, exit code, code) of every class that the docstring draws."""
    tree: dict[str, tuple[str | None, int | None, str | None]] = {}
    above: list[tuple[int, str]] = []
    for line in LINE.finditer(errors.__doc__ or ""):
        depth, name = len(line["lead"]), line["name"]
        while above and above[-1][0] >= depth:
            above.pop()
        parent = above[-1][1] if above else None
        words = line["rest"].split() if parent else []
        exits = [int(word) for word in words if word.isdecimal()]
        codes = [word for word in words if not word.isdecimal()]
        tree[name] = (parent, exits[0] if exits else None, codes[0] if codes else None)
        above.append((depth, name))
    return tree


def error_classes() -> dict[str, type[DsollamaError]]:
    members = inspect.getmembers(errors, inspect.isclass)
    return {name: each for name, each in members if issubclass(each, DsollamaError)}


TREE = drawn_tree()
CLASSES = error_classes()
EACH = pytest.mark.parametrize("name", sorted(CLASSES))


def test_the_tree_draws_every_class_and_no_other() -> None:
    assert set(TREE) == set(CLASSES)
    assert len(TREE) > 25


@EACH
def test_a_class_hangs_where_the_tree_draws_it(name: str) -> None:
    parent = TREE[name][0]
    assert [base.__name__ for base in CLASSES[name].__bases__] == [parent or "Exception"]


@EACH
def test_a_class_has_the_exit_code_that_is_drawn_or_its_parents(name: str) -> None:
    parent, exit_code, _ = TREE[name]
    expected = exit_code
    if expected is None and parent is not None:
        expected = CLASSES[parent].exit_code
    assert CLASSES[name].exit_code == (1 if parent is None else expected)


@EACH
def test_a_leaf_has_the_code_that_is_drawn(name: str) -> None:
    is_leaf = name not in {parent for parent, _, _ in TREE.values()}
    assert (TREE[name][2] is not None) == is_leaf
    if is_leaf:
        assert CLASSES[name].code == TREE[name][2]


@EACH
def test_every_class_states_its_own_code_in_words_and_dashes(name: str) -> None:
    assert "code" in vars(CLASSES[name])
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", CLASSES[name].code)


def test_no_two_classes_share_a_code() -> None:
    codes = [each.code for each in CLASSES.values()]
    assert sorted(set(codes)) == sorted(codes)


def test_each_family_has_its_own_exit_code_and_none_is_success() -> None:
    families = [name for name, (parent, _, _) in TREE.items() if parent == "DsollamaError"]
    exits = [CLASSES[name].exit_code for name in families]
    assert sorted(exits) == [2, 3, 4, 5, 6, 8, 9, 130]


@EACH
def test_an_error_is_its_sentence_and_its_hint(name: str) -> None:
    error = CLASSES[name]("It failed.", "Try again.")
    assert (str(error), error.hint) == ("It failed.", "Try again.")
    assert CLASSES[name]("It failed.").hint == CLASSES[name].usual_hint


@EACH
def test_every_class_says_when_it_is_raised(name: str) -> None:
    assert re.search(r"\.$", (CLASSES[name].__doc__ or "").strip().splitlines()[0])
