"""The environment, read once and passed on.

Beside this module, `net` reads the variables of proxies and certificates, `programs` PATH, and
huggingface_hub those of the token.

| variable | meaning |
|---|---|
| OLLAMA_MODELS | the store; default `~/.ollama/models`, as Ollama's own |
| OLLAMA_HOST | where the running Ollama answers; read by the `ollama` client |
| HF_ENDPOINT | the Hub; default https://huggingface.co. A login in it goes there and nowhere else |
| HF_TOKEN, HF_TOKEN_PATH, HF_HOME | the token; read by huggingface_hub |
| HF_HUB_DISABLE_IMPLICIT_TOKEN | 1: no token is sent, HF_TOKEN neither; read by huggingface_hub |
| HF_HUB_OFFLINE | 1 forbids the network |
| NO_COLOR | any value: no colours |
| DSOLLAMA_CONNECTIONS | parallel connections of a download, 1 to 32; default 8 |
| DSOLLAMA_READ_TIMEOUT | seconds without a byte after which a connection has stalled; default 20 |
| DSOLLAMA_MAX_WAIT | longest pause between two tries, in seconds; default 30 |
| DSOLLAMA_ANSWER_TIMEOUT | seconds that an Ollama may take for a short answer; default 60 |
| DSOLLAMA_WORK_TIMEOUT | seconds that it may be silent while it loads a model; default 14400 |
| LLAMA_GGUF_SPLIT | the program of `--merger llama-gguf-split` |
| XDG_CACHE_HOME | where merged files wait for an upload; default `~/.cache` |
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dsollama.addresses import Endpoint
from dsollama.errors import UsageError

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_CONNECTIONS = 8
MAX_CONNECTIONS = 32
_TRUE = {"1", "on", "yes", "true"}
_MAX_SECONDS = 3600.0
_MAX_WORK_SECONDS = 7 * 86_400.0


@dataclass(frozen=True)
class Patience:
    """How long the network is waited for, in seconds.

    Attributes:
        read: without a byte, or for one whole read, until a connection counts as stalled.
        wait: longest pause between two tries. A server that asks for a pause gets ten times that.
        server: for the whole of a short answer of an Ollama or llama-server.
        work: for which it may be silent while it loads a model, copies or makes one. Four hours are
            720 GB (the largest quant) at 50 MB/s.
    """

    read: float = 20.0
    wait: float = 30.0
    server: float = 60.0
    work: float = 14_400.0

    @property
    def answer(self) -> float:
        """For the whole answer to a small question, such as a listing."""
        return 6 * self.read

    @property
    def receiver(self) -> float:
        """For which who takes an upload may pause: a quarter of an hour."""
        return 15 * self.server

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Patience:
        """Read the variables of this module's table; what is no number is left out."""
        return cls(
            _seconds(environ.get("DSOLLAMA_READ_TIMEOUT", ""), cls.read),
            _seconds(environ.get("DSOLLAMA_MAX_WAIT", ""), cls.wait),
            _seconds(environ.get("DSOLLAMA_ANSWER_TIMEOUT", ""), cls.server),
            _seconds(environ.get("DSOLLAMA_WORK_TIMEOUT", ""), cls.work, _MAX_WORK_SECONDS),
        )


def usual_patience() -> Patience:
    """Return what this process's environment says, for those who were given none."""
    return Patience.from_environ(os.environ)


def usual_endpoint() -> Endpoint:
    """Return this process's HF_ENDPOINT, with the login that may stand in it.

    Raises:
        UsageError: it is no address.
    """
    return _endpoint(os.environ)


def usual_ollama_host() -> str | None:
    """Return this process's OLLAMA_HOST as it stands, or None."""
    return os.environ.get("OLLAMA_HOST") or None


def no_color_wanted() -> bool:
    """Whether this process's NO_COLOR has a value."""
    return bool(os.environ.get("NO_COLOR"))


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder for its `~` or `~USER`.

    Raises:
        UsageError: the system does not know that home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path} is in the home of a user, which this system does not know.",
            "Set HOME, or name the folder from / on: the store by --store or OLLAMA_MODELS, the "
            "cache by XDG_CACHE_HOME.",
        ) from error


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Attributes:
        store: Ollama's model folder (the one that holds `blobs` and `manifests`).
        endpoint: address of the Hub, without a login and without a slash at its end.
        offline: whether the network is forbidden.
        ollama_host: OLLAMA_HOST as it stands, or None.
        connections: parallel connections of a download.
        gguf_split: path of `llama-gguf-split` where LLAMA_GGUF_SPLIT names one.
        no_color: whether colours and the like are unwanted.
        store_named: whether somebody said where the store is.
        cache: XDG_CACHE_HOME where it is an absolute path, else None.
    """

    store: Path
    endpoint: str = DEFAULT_ENDPOINT
    offline: bool = False
    ollama_host: str | None = None
    connections: int = DEFAULT_CONNECTIONS
    gguf_split: str | None = None
    no_color: bool = False
    store_named: bool = False
    cache: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], given: Path | None = None) -> Settings:
        """Read the variables of this module's table; unreadable numbers fall back to defaults.

        Args:
            environ: the environment.
            given: a store that the user names otherwise, which then counts.

        Raises:
            UsageError: HF_ENDPOINT is no address, or the store is in a home that is not known.
        """
        # Ollama, too, takes off spaces and quotation marks (envconfig.Var).
        named = environ.get("OLLAMA_MODELS", "").strip().strip("\"'")
        store = str(given) if given else named or "~/.ollama/models"
        cache = Path(environ.get("XDG_CACHE_HOME", ""))
        raw = environ.get("DSOLLAMA_CONNECTIONS", "")
        connections = int(raw[:9]) if raw.isdecimal() else DEFAULT_CONNECTIONS
        home = given or store == "~" or store.startswith("~/")
        return cls(
            store=(expanded(store) if home else Path(store)).absolute(),
            endpoint=_endpoint(environ).public,
            offline=environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
            ollama_host=environ.get("OLLAMA_HOST") or None,
            connections=min(max(connections, 1), MAX_CONNECTIONS),
            gguf_split=environ.get("LLAMA_GGUF_SPLIT") or None,
            no_color=bool(environ.get("NO_COLOR")),
            store_named=bool(given or named),
            cache=cache if cache.is_absolute() else None,
        )


def _endpoint(environ: Mapping[str, str]) -> Endpoint:
    try:
        return Endpoint.parse(environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
    except ValueError:  # of which nothing is shown: a password may be in it
        raise UsageError(
            "HF_ENDPOINT is not the address of a server.",
            "It is written https://HOST or https://USER:PASSWORD@HOST; other characters of a "
            "password than letters and digits are written as %2F and the like.",
        ) from None


def _seconds(raw: str, usual: float, most: float = _MAX_SECONDS) -> float:
    try:
        value = float(raw)
    except ValueError:
        return usual
    return min(value, most) if math.isfinite(value) and value > 0 else usual
