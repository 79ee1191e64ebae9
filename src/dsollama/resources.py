"""Files that ship with dsollama: from the wheel, or from the folders of a checkout."""

from __future__ import annotations

from pathlib import Path

from dsollama.privileges import as_caller

_PACKAGE = Path(__file__).parent


def read_template(name: str) -> str:
    """Return the text of `templates/NAME`, exactly, newlines included.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    return _read(_find("templates", name))


def read_data(room: str, name: str) -> str:
    """Return the text of a file that lies beside the modules of a room, such as `catalog`."""
    return _read(_PACKAGE / room / name)


def _find(folder: str, name: str) -> Path:
    installed = _PACKAGE / "_data" / folder / name
    with as_caller():
        return installed if installed.is_file() else _PACKAGE.parents[1] / folder / name


def _read(path: Path) -> str:
    with as_caller():
        return path.read_text(encoding="utf-8")
