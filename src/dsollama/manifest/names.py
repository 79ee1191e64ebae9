"""Model names as Ollama reads them: `[host/][namespace/]model[:tag]`.

Rules: types/model/name.go of Ollama 0.33.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from dsollama.errors import InvalidNameError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
MAX_PART = 80
"""Characters of a namespace, model or tag."""

_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A full model name; `str()` gives the shortest form, as `ollama list` shows it."""

    model: str
    tag: str = DEFAULT_TAG
    namespace: str = DEFAULT_NAMESPACE
    host: str = DEFAULT_HOST

    def __str__(self) -> str:
        if self.host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        if self.namespace != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def path(self) -> PurePosixPath:
        """Place of its manifest below `manifests/`."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def folded(self) -> tuple[str, ...]:
        """Its parts without regard to case, as Ollama compares names."""
        return tuple(part.casefold() for part in self.path.parts)

    @property
    def listed(self) -> str:
        """As `ollama list` shows it: without the default host and namespace, however spelled."""
        host, namespace = self.folded[:2]
        if host != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"
        shown = "" if namespace == DEFAULT_NAMESPACE else f"{self.namespace}/"
        return f"{shown}{self.model}:{self.tag}"

    def with_tag(self, tag: str) -> ModelName:
        """Return the same model under another tag.

        Raises:
            InvalidNameError: Ollama would not accept the tag.
        """
        return parse_name(str(replace(self, tag=tag)))


def parse_name(text: str) -> ModelName:
    """Parse and check a model name.

    Raises:
        InvalidNameError: Ollama would not accept it.
    """
    rest, tag = text, DEFAULT_TAG
    if ":" in text.rsplit("/", 1)[-1]:
        rest, tag = text.rsplit(":", 1)
    parts = rest.split("/")
    if len(parts) > 3:  # noqa: PLR2004
        raise _invalid(text)
    defaults = (DEFAULT_HOST, DEFAULT_NAMESPACE)
    host, namespace, model = (*defaults[: 3 - len(parts)], *parts)
    rules = ((_HOST, host), (_NAMESPACE, namespace), (_MODEL, model), (_MODEL, tag))
    if not all(rule.fullmatch(part) for rule, part in rules):
        raise _invalid(text)
    return ModelName(model, tag, namespace, host)


def _invalid(text: str) -> InvalidNameError:
    return InvalidNameError(
        f"{text!r} is not a name that Ollama accepts.",
        "A name is [namespace/]model[:tag] of letters, digits, '_', '-' and '.', not beginning "
        "with '-' or '.'; the parts have at most 80 characters.",
    )
