"""`dsollama list`, `show` and `modelfile`: what the store holds, and what the catalog would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsollama.cli.options import JsonOption, StoreOption, store_settings
from dsollama.cli.tables import MODELS, TableCommand

if TYPE_CHECKING:
    from dsollama.manifest.modelfile import Modelfile
    from dsollama.store.ledger import LedgerEntry
    from dsollama.store.store import InstalledModel, Store

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name as `dsollama list` shows it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("list", help="List the models of Ollama's store.")(_list)
    app.command("show", help="Show a model's weights, settings and origin.")(_show)
    app.command(
        "modelfile",
        cls=TableCommand,
        short_help="Print a model's Modelfile.",
        help="Print the Modelfile of an installed model, or of a catalog model "
        f"({MODELS}) for a merged file of your own.",
    )(_modelfile)


def _list(store: StoreOption = None, as_json: JsonOption = False) -> None:
    from dsollama.cli.output import hint, print_json, print_table
    from dsollama.cli.pending import hint_pending
    from dsollama.store.spelling import by_spelling, clashes, touching
    from dsollama.store.store import Store
    from dsollama.units import MAX_SHOWN, format_bytes

    opened = Store(store_settings(store).store)
    hint_pending(opened)
    models = opened.models()
    twins = clashes(opened.names())
    found = by_spelling(twins)
    described = [
        describe(opened, each)
        | {
            "twins": sorted(
                {
                    str(name)
                    for clash in touching(each.name, found)
                    for name in clash.others(each.name)
                }
            )
        }
        for each in models
    ]
    if as_json:
        print_json(described)
        return
    if not models:
        hint(f"{opened.root} holds no model yet. Try: dsollama install UD-Q2_K_XL")
        return
    rows = [["NAME", "SIZE", "WEIGHTS", "FROM", "MODIFIED"]]
    rows += [
        [
            each["name"],
            format_bytes(each["size"]),
            each["weights"].removeprefix("sha256:")[:12],
            each["source"] or "-",
            each["modified"][:16].replace("T", " "),
        ]
        for each in described
    ]
    print_table(rows)
    blobs = {layer.digest: layer.size for each in models for layer in (each.config, *each.layers)}
    hint(f"{format_bytes(sum(blobs.values()))} on disk (names with the same WEIGHTS share them)")
    for clash in twins[:MAX_SHOWN]:
        hint(f"Note: {clash.text()}")
    if len(twins) > MAX_SHOWN:
        hint(f"Note: {len(twins) - MAX_SHOWN} more parts of names are spelled in two ways.")
    if twins:
        hint("Hint: `dsollama verify --quick` says how to give them one spelling.")


def _show(name: ModelArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    from dsollama.cli.output import print_json, print_table
    from dsollama.manifest.names import parse_name
    from dsollama.store.store import Store
    from dsollama.units import format_bytes

    opened = Store(store_settings(store).store)
    found = details(opened, opened.model(parse_name(name)))
    if as_json:
        print_json(found)
        return
    config = found["config"]
    rows = [
        ["name", found["name"]],
        ["architecture", str(config.get("model_family", "?"))],
        ["parameters", str(config.get("model_type", "?"))],
        ["quantization", str(config.get("file_type", "?"))],
        ["weights", f"{found['weights']} ({format_bytes(found['weights_size'])})"],
        ["from", found["source"] or "not installed by dsollama"],
        ["template", f"{len(found['template'])} characters" if found["template"] else "the GGUF's"],
        ["system", json.dumps(found["system"], ensure_ascii=False) if found["system"] else "none"],
        *(["parameter", f"{key} {value}"] for key, value in found["params"].items()),
    ]
    print_table(rows)


def _modelfile(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="An installed or a catalog model.")],
    variant: Annotated[
        str,
        typer.Option(
            "--variant", help="Of a catalog model: plain or thinking.", show_default=False
        ),
    ] = "",
    base: Annotated[
        str, typer.Option("--from", help="Of a catalog model: what FROM names.")
    ] = "./merged_file.gguf",
    store: StoreOption = None,
) -> None:
    from dsollama.catalog.models import find_model
    from dsollama.cli.output import write
    from dsollama.errors import UnknownModelError
    from dsollama.manifest.names import parse_name
    from dsollama.store.store import Store
    from dsollama.templates.variants import catalog_modelfile, choose_variants

    try:
        model = find_model(name)
    except UnknownModelError:
        opened = Store(store_settings(store).store)
        text = modelfile_of(opened, opened.model(parse_name(name)))
    else:
        chosen = choose_variants(model.variants, [variant] if variant else model.variants[:1])[0]
        text = _render(catalog_modelfile(model, chosen, base), model.key)
    write(text)


def describe(store: Store, model: InstalledModel) -> dict[str, Any]:
    """Return what `list` says of a model, as plain data; sizes in bytes."""
    from dsollama.manifest.layers import MODEL

    weights = model.layer(MODEL)
    entry = store.ledger.read(weights.digest) if weights else None
    return {
        "name": str(model.name),
        "size": model.size,
        "weights": weights.digest if weights else "",
        "weights_size": weights.size if weights else 0,
        "modified": model.modified.isoformat(timespec="seconds"),
        "source": _source(entry) if entry else None,
        "unchecked": list(entry.unchecked) if entry else [],
    }


def _source(entry: LedgerEntry) -> str:
    """Say where weights came from; whether a Hub has the same is not known of a folder's."""
    if entry.listed:
        return f"{entry.repository}@{entry.commit[:12]}"
    return f"{entry.repository}, copied from {entry.folder or 'a folder'}"


def details(store: Store, model: InstalledModel) -> dict[str, Any]:
    """Return what `show` says of a model, as plain data; sizes in bytes.

    Raises:
        BrokenManifestError: one of its small layers cannot be read.
    """
    from msgspec import structs

    from dsollama.manifest import layers

    def text(media_type: str) -> str | None:
        layer = model.layer(media_type)
        return store.read_blob(layer.digest).decode("utf-8", "replace") if layer else None

    params = model.layer(layers.PARAMS)
    return {
        **describe(store, model),
        "config": _object(store, model, model.config.digest),
        "template": text(layers.TEMPLATE),
        "system": text(layers.SYSTEM) or "",
        "params": _object(store, model, params.digest) if params else {},
        "layers": [structs.asdict(layer) for layer in (model.config, *model.layers)],
    }


def modelfile_of(store: Store, model: InstalledModel) -> str:
    """Return the Modelfile that says the same as an installed model.

    Raises:
        BrokenManifestError: one of its small layers cannot be read.
        MalformedModelfileError: it holds what no Modelfile can say.
    """
    from dsollama.cli.output import printable
    from dsollama.manifest.modelfile import Modelfile

    found = details(store, model)
    document = Modelfile(
        base=str(store.blob_path(found["weights"])),
        template=found["template"],
        params=found["params"],
        system=found["system"],
        comment=printable(f"{found['name']}, from {found['source'] or 'an unknown source'}"),
    )
    return _render(document, found["name"])


def _render(document: Modelfile, name: str) -> str:
    from dsollama.errors import MalformedModelfileError

    try:
        return document.render()
    except ValueError as error:
        raise MalformedModelfileError(
            f"No Modelfile can say what {name} is: {error}.",
            f"`dsollama show --json {name}` shows an installed model's parts.",
        ) from error


def _object(store: Store, model: InstalledModel, digest: str) -> dict[str, Any]:
    """Read a layer that is a JSON object."""
    from dsollama.errors import BrokenManifestError
    from dsollama.store.store import MAX_JSON

    try:
        found = json.loads(store.read_blob(digest, MAX_JSON))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise BrokenManifestError(f"The layer {digest} of {model.name} is no JSON object.")
    return found
