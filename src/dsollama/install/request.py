"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsollama.errors import UsageError
from dsollama.manifest.names import parse_name
from dsollama.settings import Settings


class Merger(StrEnum):
    """How shards become one file."""

    NATIVE = "native"
    LLAMA_GGUF_SPLIT = "llama-gguf-split"


class Via(StrEnum):
    """Which way a model goes into Ollama; AUTO chooses."""

    AUTO = "auto"
    STORE = "store"
    API = "api"


@dataclass(frozen=True)
class InstallRequest:
    """An install as asked for.

    Attributes:
        target: `QUANT` or `hf.co/OWNER/REPO:QUANT`.
        settings: the environment, `--store` already in it.
        model: value of `--model`, or None.
        name: name for Ollama instead of the catalog's, or None.
        variants: template variants; all where empty.
        revision: branch, tag or commit; None for the main branch.
        merger: which merger.
        resume: whether only a stopped install is to go on; `target` may then be empty.
        from_dir: folder with shards that the user has already.
        consume: whether each of those is deleted once it is merged and on the disk.
        from_store: another Ollama store that dsollama has installed the model into.
        from_url: folder of a web server that has the files, instead of the Hub.
    """

    target: str
    settings: Settings
    model: str | None = None
    name: str | None = None
    variants: tuple[str, ...] = ()
    revision: str | None = None
    merger: Merger = Merger.NATIVE
    resume: bool = False
    from_dir: Path | None = None
    consume: bool = False
    from_store: Path | None = None
    from_url: str | None = None

    def require_sense(self) -> None:
        """Refuse options that contradict each other, and names that are none.

        Raises:
            UsageError: with the option to leave out.
        """
        if self.from_dir and self.from_store:
            raise UsageError("--from-dir and --from-store cannot both be the source.", "Give one.")
        if self.consume and (not self.from_dir or self.merger is not Merger.NATIVE):
            raise UsageError(
                "--consume deletes shards of --from-dir while they are merged natively.",
                "Give --from-dir, and leave out --merger.",
            )
        if self.resume and (self.revision or self.from_url):
            raise UsageError(
                "--resume goes on with the files that the install began with.",
                "Leave out --revision and --from-url, or --resume.",
            )
        if self.name:
            parse_name(self.name)
