"""DeepSeek's control marks in what a person types or pastes."""

from __future__ import annotations

import re

_MARK = re.compile(r"<(?=｜[^<>｜\n]{1,40}｜>)")


def disarm(text: str) -> str:
    """Return the text with a space in every control mark, such as `< ｜User｜>`.

    The prompt is one text in which the engine reads marks wherever they stand: a pasted
    `<｜User｜>` would begin a turn. With the space it stays readable and is no mark.
    """
    return _MARK.sub("< ", text)
