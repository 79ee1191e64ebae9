"""The root of the tree of errors, and the walk to what an error comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

_MAX_CAUSES = 20


class DsollamaError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    usual_hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the sentence and the hint.

        Args:
            message: one sentence that says what went wrong.
            hint: what the user can do about it; the class's usual hint where empty.
        """
        super().__init__(message)
        self.hint = hint or self.usual_hint


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it comes from, also as requests and httpx wrap them."""
    waiting, seen = [error], 0
    while waiting and seen < _MAX_CAUSES:
        each = waiting.pop(0)
        seen += 1
        yield each
        context = None if each.__suppress_context__ else each.__context__
        inner = (each.__cause__, context, getattr(each, "reason", None), *each.args)
        waiting += [found for found in inner if isinstance(found, BaseException)]
