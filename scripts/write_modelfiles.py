"""`make modelfiles`: write modelfiles/ from the catalog and templates/. A test compares."""

from __future__ import annotations

from pathlib import Path

from dsollama.catalog.models import load_catalog
from dsollama.templates.variants import catalog_modelfile, choose_variants

FOLDER = Path(__file__).parents[1] / "modelfiles"


def modelfiles() -> dict[str, str]:
    """Return the text of every model x variant by file name."""
    texts = {}
    for model in load_catalog().values():
        for variant in choose_variants(model.variants, ()):
            name = f"{model.name}{variant.tag_suffix}.Modelfile"
            texts[name] = catalog_modelfile(model, variant, "./merged_file.gguf").render()
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.Modelfile"):
        old.unlink()
    for name, text in modelfiles().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
