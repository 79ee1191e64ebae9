"""Files that ship with dsollama: from the wheel, or from the folders of a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def read_template(name: str) -> str:
    """Return the text of `templates/NAME`, exactly, newlines included.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    return _find("templates", name).read_text(encoding="utf-8")


def _find(folder: str, name: str) -> Path:
    installed = _PACKAGE / "_data" / folder / name
    if installed.is_file():
        return installed
    return _PACKAGE.parents[1] / folder / name
