"""Questions to a running Ollama that its Python client cannot ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from dsollama.errors import (
    EngineError,
    NotEnoughDiskError,
    NotInstalledError,
    OllamaRefusedError,
    OllamaTooOldError,
    StoreError,
)
from dsollama.ollama.answers import (
    MAX_LINE_BYTES,
    Answer,
    Limits,
    Peer,
    asked,
    question,
    streamed,
)
from dsollama.ollama.shapes import Model, Progress, Refusal, Rendered, Shown, Tags, Version
from dsollama.settings import Patience, usual_patience

LONGEST_WORK = 6
"""Times `Patience.work` that a server may take to make a model: a day."""

OLDEST = (0, 30)
"""The first release that runs models by llama-server, for which the templates are made."""

MAX_WORDS = 500
MAX_NAME = 1024
"""Characters of a model's name; Ollama takes 350 for host and each other part less."""

_NOT_FOUND = 404
_NO_ROOM = 507
_NO_JSON = "it is not Ollama's JSON"
_FROM_BLOB = re.compile(r"^FROM .*[/\\]sha256-([0-9a-f]{64})\s*$", re.MULTILINE)

Status = Callable[[Progress], None]
T = TypeVar("T")


class Server:
    """The server at an address."""

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        """Ask nothing yet.

        Args:
            address: from `server_address`, which has no password in it.
            patience: how long the server is waited for; None for what the environment says.
        """
        self.peer = Peer(address)
        self.patience = patience or usual_patience()

    @property
    def address(self) -> str:
        """Where it is."""
        return self.peer.address

    def version(self) -> str:
        """Return the server's version.

        Raises:
            OllamaTooOldError: it is older than 0.30.
            EngineError: it does not answer, or is no Ollama.
        """
        found = self.any_version()
        numbers = re.match(r"(\d{1,9})\.(\d{1,9})", found)
        if not numbers:
            raise OllamaRefusedError(
                f"What answers at {self.address} does not say which Ollama it is.",
                "Set OLLAMA_HOST to where Ollama runs.",
            )
        # 0.0.0 is one that somebody built without saying its version.
        if (0, 0) < tuple(map(int, numbers.groups())) < OLDEST:
            raise OllamaTooOldError(f"The Ollama at {self.address} is {found[:100]}.")
        return found

    def any_version(self) -> str:
        """Return the server's version, whatever it is.

        Raises:
            EngineError: it does not answer, or is no Ollama.
        """
        return self.ask("GET", "/api/version", Version).version[:MAX_WORDS]

    def ask(
        self,
        method: str,
        path: str,
        shape: type[T],
        body: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> T:
        """Return the JSON that the server answers, in the shape that it must have.

        Args:
            method: of HTTP.
            path: below the address.
            shape: a Struct of `ollama.shapes`.
            body: as JSON.
            seconds: for the whole answer; None for those of a short one.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, or refuses.
        """
        answer = self._asked(method, path, body, seconds)
        return self._shaped(answer.body, shape)

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float | None
    ) -> Answer:
        limits = Limits(self.patience.server if seconds is None else seconds)
        answer = asked(self.peer, question(method, path, body), limits)
        if answer.ok:
            return answer
        words = self.words(answer.body)
        if answer.status == _NOT_FOUND:
            raise NotInstalledError(
                f"The Ollama at {self.address} has no such model.", "`ollama list` shows its names."
            )
        raise self.refused(answer.status, words)

    def _shaped(self, data: bytes, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=shape)
        except (ValueError, RecursionError) as error:
            raise self.peer.no_server(_NO_JSON) from error

    def words(self, body: bytes) -> str:
        """Return what a refusal says, empty where it says nothing.

        Raises:
            OllamaRefusedError: it is not Ollama's.
        """
        return self._shaped(body, Refusal).error if body.strip() else ""

    def refused(self, status: int, words: str) -> EngineError | StoreError:
        """Return the error for an answer that says no, in these `words`."""
        if status == _NO_ROOM or "no space left" in words or "disk quota" in words:
            return NotEnoughDiskError(
                f"The disk of the Ollama at {self.address} is full.",
                "Free some space there; the merged file is kept, and the same command goes on.",
            )
        said = words[:MAX_WORDS] or f"HTTP {status}"
        return OllamaRefusedError(f"The Ollama at {self.address} says: {said}", "Its log has more.")

    def render(self, body: Mapping[str, Any]) -> str:
        """Return the prompt that an /api/chat request would be answered for; generates nothing.

        The first one may load the model.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, refuses, or is too old to show prompts.
        """
        wanted = {**body, "stream": False, "_debug_render_only": True}
        shown = self.ask("POST", "/api/chat", Rendered, wanted, self.patience.work).prompt
        if shown is None:
            raise OllamaTooOldError(
                f"The Ollama at {self.address} is too old: it shows no prompts that it renders."
            )
        return shown.rendered_template

    def create(self, body: Mapping[str, Any], status: Status) -> None:
        """Make a model; `status` hears every line of the server's progress.

        Raises:
            NotEnoughDiskError: the server says that its disk is full.
            EngineError: it does not answer, refuses, or stopped before it was done.
        """
        self._follow("/api/create", body, status)

    def pull(self, name: str) -> None:
        """Let the server pull a model from the registry in its name, by plain HTTP.

        Raises:
            EngineError: it does not answer, refuses, or cannot reach the registry.
        """
        self._follow("/api/pull", {"model": name, "insecure": True}, lambda _line: None)

    def copy(self, source: str, name: str) -> None:
        """Give a model a second name.

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        body = {"source": source, "destination": name}
        self._asked("POST", "/api/copy", body, self.patience.receiver)

    def models(self) -> tuple[Model, ...]:
        """Return the server's models; those are left out whose name no model can have.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        found = self.ask("GET", "/api/tags", Tags).models or ()
        return tuple(
            each for each in found if each.name.isprintable() and len(each.name) <= MAX_NAME
        )

    def names(self) -> list[str]:
        """Return the names of the server's models.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        return [each.name for each in self.models()]

    def _follow(self, path: str, body: Mapping[str, Any], status: Status) -> None:
        limits = Limits(
            self.patience.work, MAX_LINE_BYTES, all_seconds=LONGEST_WORK * self.patience.work
        )
        last = Progress()
        with streamed(self.peer, question("POST", path, body), limits) as answer:
            for line in answer.lines():
                last = self._shaped(line, Progress)
                if last.error:
                    raise self.refused(answer.status, last.error)
                status(last)
        if last.status != "success":
            raise self.refused(answer.status, "it stopped without a word")

    def show(self, name: str) -> Shown:
        """Return what the server tells of a model.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, or refuses.
        """
        return self.ask("POST", "/api/show", Shown, {"model": name})

    def weights(self, name: str) -> str | None:
        """Return `sha256:HEX` of a model's weights; None where the server has no such model.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        try:
            shown = self.show(name)
        except NotInstalledError:
            return None
        found = _FROM_BLOB.search(shown.modelfile)
        return f"sha256:{found[1]}" if found else None

    def delete(self, name: str) -> None:
        """Delete a model, and of its blobs those that no other model names.

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        self._asked("DELETE", "/api/delete", {"model": name}, self.patience.receiver)
