"""Names that the file system refuses are known before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsollama.errors import InvalidNameError, StoreNotWritableError
from dsollama.manifest.names import ModelName, parse_name
from dsollama.store.places import require_place
from dsollama.store.store import Store

NAME = parse_name("h.x/team/model:tag")


def test_a_name_that_fits_needs_no_store_and_makes_nothing(tmp_path: Path) -> None:
    require_place(Store(tmp_path / "models"), NAME, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [False, True])
def test_a_part_longer_than_the_file_system_takes_is_refused(tmp_path: Path, exists: bool) -> None:
    store = Store(tmp_path / "models")
    if exists:
        (store.root / "manifests").mkdir(parents=True)
    require_place(store, ModelName("m", host="h" * 255), "")
    with pytest.raises(InvalidNameError) as caught:
        require_place(store, ModelName("m", host="h" * 256), "help")
    assert caught.value.hint == "help"


def test_a_path_longer_than_the_system_takes_is_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 18)
    require_place(Store(deep), NAME, "")
    with pytest.raises(InvalidNameError):
        require_place(Store(deep.joinpath(*["d" * 200])), ModelName(*["n" * 80] * 3, "h" * 200), "")


@pytest.mark.parametrize("where", ["h.x", "h.x/team", "h.x/team/model"])
@pytest.mark.parametrize("top", ["manifests", ".dsollama/modelfiles"])
def test_a_file_where_a_folder_must_be_is_refused(tmp_path: Path, where: str, top: str) -> None:
    path = tmp_path / top / where
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(StoreNotWritableError, match=f"{where} is in its way") as caught:
        require_place(Store(tmp_path), NAME, "help")
    assert caught.value.hint == "help"


def test_a_folder_where_a_file_must_be_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.manifest_path(NAME).mkdir(parents=True)
    with pytest.raises(StoreNotWritableError, match="model/tag is in its way"):
        require_place(store, NAME, "")
