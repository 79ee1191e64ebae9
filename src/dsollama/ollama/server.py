"""Questions to a running Ollama that its Python client cannot ask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from dsollama.errors import (
    EngineError,
    NotEnoughDiskError,
    NotInstalledError,
    OllamaRefusedError,
    OllamaTooOldError,
    OllamaUnreachableError,
    StoreError,
)
from dsollama.net.sessions import new_session

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 900.0
"""How long a server may take for one answer: the first one may have to load the model. For each
line of a create there is no limit, because it says nothing while it copies 251 GB."""

MAX_LINE_BYTES = 16 * 2**20
"""Of an answer or a status line; a prompt that is shown may have megabytes."""

OLDEST = (0, 30)
_NOT_FOUND = 404
_NO_ROOM = 507
_FROM_BLOB = re.compile(r"^FROM .*[/\\]sha256-([0-9a-f]{64})\s*$", re.MULTILINE)

Status = Callable[[Mapping[str, Any]], None]


class Server:
    """The server at an address."""

    def __init__(self, address: str) -> None:
        """Ask nothing yet; `address` is from `server_address`, which has no password in it."""
        self.address = address
        self.session = new_session(proxied=False)  # as in ollama.names

    def version(self) -> str:
        """Return the server's version.

        Raises:
            OllamaTooOldError: it is older than 0.30.
            EngineError: it does not answer, or is no Ollama.
        """
        found = self.ask("GET", "/api/version").get("version", "")
        numbers = re.match(r"(\d+)\.(\d+)", str(found))
        if not numbers:
            raise OllamaRefusedError(
                f"What answers at {self.address} does not say which Ollama it is.",
                "Set OLLAMA_HOST to where Ollama runs.",
            )
        # 0.0.0 is one that somebody built without saying its version.
        if (0, 0) < tuple(map(int, numbers.groups())) < OLDEST:
            raise OllamaTooOldError(f"The Ollama at {self.address} is {found}.")
        return str(found)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON that the server answers.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, or refuses.
        """
        with self.failures():
            answer = self.session.request(
                method,
                self.address + path,
                json=body,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                stream=True,
            )
            found = next(self.lines(answer), {})
        if answer.status_code == _NOT_FOUND:
            raise NotInstalledError(
                f"The Ollama at {self.address} has no such model.", "`ollama list` shows its names."
            )
        if not answer.ok:
            raise self.refused(answer.status_code, str(found.get("error", "")))
        return found

    def lines(self, answer: requests.Response) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of an answer, a line each, as they arrive; none is without bound.

        Raises:
            EngineError: it is no such answer.
        """
        left = b""
        for chunk in answer.iter_content(None):
            *lines, left = (left + chunk).split(b"\n")
            yield from (self._object(answer, line) for line in lines if line.strip())
            if len(left) > MAX_LINE_BYTES:
                raise self.refused(answer.status_code, "an answer without an end")
        if left.strip():
            yield self._object(answer, left)

    def _object(self, answer: requests.Response, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.refused(answer.status_code, "what it says is not Ollama's JSON")
        return found

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what breaks the connection inside the block into OllamaUnreachableError."""
        try:
            yield
        except (requests.RequestException, OSError) as error:
            raise OllamaUnreachableError(
                f"No Ollama answers at {self.address}.",
                "Start it with `ollama serve`, or set OLLAMA_HOST to where it runs.",
            ) from error

    def refused(self, status: int, words: str) -> EngineError | StoreError:
        """Return the error for an answer that says no, in these `words`."""
        if status == _NO_ROOM or "no space left" in words or "disk quota" in words:
            return NotEnoughDiskError(
                f"The disk of the Ollama at {self.address} is full.",
                "Free some space there; the merged file is kept, and the same command goes on.",
            )
        said = words[:500] or f"HTTP {status}"
        return OllamaRefusedError(f"The Ollama at {self.address} says: {said}", "Its log has more.")

    def render(self, body: Mapping[str, Any]) -> str:
        """Return the prompt that an /api/chat request would be answered for; generates nothing.

        Raises:
            NotInstalledError: it has no such model.
            EngineError: it does not answer, refuses, or is too old to show prompts.
        """
        asked = {**body, "stream": False, "_debug_render_only": True}
        shown = self.ask("POST", "/api/chat", asked).get("_debug_info")
        if not isinstance(shown, dict) or "rendered_template" not in shown:
            raise OllamaTooOldError(
                f"The Ollama at {self.address} is too old: it shows no prompts that it renders."
            )
        return str(shown["rendered_template"])

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
        self.ask("POST", "/api/copy", {"source": source, "destination": name})

    def names(self) -> list[str]:
        """Return the names of the server's models.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        models = self.ask("GET", "/api/tags").get("models")
        return [str(each.get("name")) for each in models or [] if isinstance(each, dict)]

    def _follow(self, path: str, body: Mapping[str, Any], status: Status) -> None:
        with self.failures():
            answer = self.session.post(
                self.address + path,
                json=body,
                stream=True,
                timeout=(CONNECT_SECONDS, None),
            )
            last: Mapping[str, Any] = {}
            for last in self.lines(answer):
                if "error" in last:
                    raise self.refused(answer.status_code, str(last["error"]))
                status(last)
        if last.get("status") != "success":
            raise self.refused(answer.status_code, "it stopped without a word")

    def weights(self, name: str) -> str | None:
        """Return `sha256:HEX` of a model's weights; None where the server has no such model.

        Raises:
            EngineError: it does not answer, or refuses.
        """
        try:
            shown = self.ask("POST", "/api/show", {"model": name})
        except NotInstalledError:
            return None
        found = _FROM_BLOB.search(str(shown.get("modelfile", "")))
        return f"sha256:{found[1]}" if found else None

    def delete(self, name: str) -> None:
        """Delete a model, and of its blobs those that no other model names.

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        self.ask("DELETE", "/api/delete", {"model": name})
