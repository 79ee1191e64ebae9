import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsollama import settings
from dsollama.settings import Patience, Settings


def read(**environ: str) -> Settings:
    return Settings.from_environ(environ)


def test_an_empty_environment_gives_ollamas_and_the_hubs_defaults() -> None:
    assert read() == Settings(
        store=Path.home() / ".ollama/models",
        endpoint="https://huggingface.co",
        offline=False,
        ollama_host=None,
        connections=8,
        gguf_split=None,
        no_color=False,
    )


def test_variables_set_to_nothing_are_as_if_absent() -> None:
    names = re.findall(r"\b[A-Z]+_[A-Z_]+\b", settings.__doc__ or "")
    assert {"OLLAMA_MODELS", "HF_ENDPOINT", "DSOLLAMA_CONNECTIONS"} <= set(names)
    assert read(**dict.fromkeys(names, "")) == read()


def test_every_variable_reaches_its_setting() -> None:
    assert read(
        OLLAMA_MODELS="/srv/models",
        OLLAMA_HOST="10.0.0.1:11434",
        HF_ENDPOINT="http://127.0.0.1:8000",
        HF_HUB_OFFLINE="1",
        DSOLLAMA_CONNECTIONS="3",
        LLAMA_GGUF_SPLIT="/opt/llama-gguf-split",
        NO_COLOR="0",
        XDG_CACHE_HOME="/var/cache",
    ) == Settings(
        store=Path("/srv/models"),
        endpoint="http://127.0.0.1:8000",
        offline=True,
        ollama_host="10.0.0.1:11434",
        connections=3,
        gguf_split="/opt/llama-gguf-split",
        no_color=True,
        store_named=True,
        cache=Path("/var/cache"),
    )
    assert read(XDG_CACHE_HOME="not/absolute").cache is None


def test_the_store_is_always_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert read(OLLAMA_MODELS="unsloth").store == tmp_path / "unsloth"
    assert read(OLLAMA_MODELS="~/models").store == Path("/home/someone/models")
    assert read().store == Path("/home/someone/.ollama/models")


# Path.expanduser raises RuntimeError there; Ollama itself expands nothing.
def test_the_home_of_a_user_that_there_is_not_is_a_folder_like_any_other() -> None:
    assert read(OLLAMA_MODELS="~no-such-user/models").store.name == "models"


# Ollama's envconfig.Var trims spaces, then quotation marks.
@pytest.mark.parametrize("value", [" /srv/models ", '"/srv/models"', "'/srv/models'"])
def test_the_store_is_read_as_ollama_reads_it(value: str) -> None:
    assert read(OLLAMA_MODELS=value).store == Path("/srv/models")


@pytest.mark.parametrize("address", ["https://hub.example", "https://hub.example//"])
def test_the_endpoint_has_no_slash_at_its_end(address: str) -> None:
    assert read(HF_ENDPOINT=address).endpoint == "https://hub.example"


@pytest.mark.parametrize(
    ("value", "offline"),
    [(v, True) for v in ("1", "on", "ON", "yes", "True", "TRUE")]
    + [(v, False) for v in ("0", "off", "no", "false", "2", "-1")],
)
def test_offline_is_read_as_huggingface_hub_reads_it(value: str, offline: bool) -> None:
    assert read(HF_HUB_OFFLINE=value).offline is offline


@pytest.mark.parametrize(
    ("value", "connections"),
    [
        ("1", 1),
        ("32", 32),
        ("0", 1),
        ("33", 32),
        ("100000", 32),
        ("-1", 8),
        ("4.5", 8),
        ("many", 8),
        (" 4", 8),
        ("²", 8),
    ],
)
def test_connections_stay_between_1_and_32_and_fall_back_to_8(value: str, connections: int) -> None:
    assert read(DSOLLAMA_CONNECTIONS=value).connections == connections


# int() refuses more than 4300 digits with a ValueError.
def test_a_number_of_endless_digits_falls_back_or_stays_within_bounds() -> None:
    assert 1 <= read(DSOLLAMA_CONNECTIONS="9" * 5000).connections <= 32


@given(st.text(max_size=20))
def test_no_number_of_connections_breaks_the_settings(value: str) -> None:
    assert 1 <= read(DSOLLAMA_CONNECTIONS=value).connections <= 32


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        read().offline = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raw", "server", "work"),
    [
        ("", 60.0, 14_400.0),
        ("7.5", 7.5, 7.5),
        ("0", 60.0, 14_400.0),
        ("-1", 60.0, 14_400.0),
        ("nan", 60.0, 14_400.0),
        ("many", 60.0, 14_400.0),
        ("1e9", 3600.0, 604_800.0),
    ],
)
def test_how_long_a_server_is_waited_for(raw: str, server: float, work: float) -> None:
    found = Patience.from_environ({"DSOLLAMA_ANSWER_TIMEOUT": raw, "DSOLLAMA_WORK_TIMEOUT": raw})
    assert (found.server, found.work, found.receiver) == (server, work, 15 * server)
