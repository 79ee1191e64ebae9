"""modelfiles/ is what `make modelfiles` writes from the catalog and the templates."""

from __future__ import annotations

import importlib.util

from conftest import ROOT


def test_the_kept_modelfiles_are_the_generated_ones() -> None:
    spec = importlib.util.spec_from_file_location("wm", ROOT / "scripts" / "write_modelfiles.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    kept = {path.name: path.read_text() for path in (ROOT / "modelfiles").iterdir()}
    assert kept == script.modelfiles()
    assert len(kept) == 6
