"""What proves to the Hub who asks: a login or a token, for one origin alone.

HF_ENDPOINT's server gets the login that stands in HF_ENDPOINT; else the token that huggingface_hub
finds; never both. No other server gets either, whatever a redirect says (`guard`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

import httpx2
import requests
from huggingface_hub import constants, get_token
from huggingface_hub import errors as hf

from dsollama.addresses import Origin, origin
from dsollama.errors import AccessDeniedError, UnusableTokenError
from dsollama.privileges import as_caller
from dsollama.settings import usual_endpoint

_TOKEN = re.compile(r"[!-~]+")
"""What a header's value has beside spaces (RFC 9110); the Hub's are `hf_` and letters."""

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Credentials:
    """An Authorization header, and for whom it is; for requests it is an `auth`.

    Attributes:
        home: who gets it; None where nobody does.
        header: its value, or None.
    """

    home: Origin | None
    header: str | None = field(default=None, repr=False)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add it to a request that goes home; the address is the one that is sent."""
        if self.header and _origin(request.url or "") == self.home:
            request.headers["Authorization"] = self.header
        return request

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request that begins at home."""
        return {"authorization": self.header} if self.header else {}


def credentials(endpoint: str, *, anonymous: bool = False) -> Credentials:
    """Return what goes to the Hub at `endpoint`.

    Args:
        endpoint: its address, without a login.
        anonymous: nothing, as the user did not choose this address.

    Raises:
        UnusableTokenError: there is a token that cannot be one.
        AccessDeniedError: huggingface_hub was to fetch a token and could not.
    """
    home = _origin(endpoint)
    if anonymous or home is None:
        return Credentials(home)
    login = _login(home)
    if login:
        return Credentials(home, login)
    token = _token()
    return Credentials(home, f"Bearer {token}" if token else None)


def access_hint(endpoint: str) -> str:
    """Return what helps where the Hub refuses access."""
    if _login(_origin(endpoint)):
        return "Check the user and the password in HF_ENDPOINT; beside them no token is sent."
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return "HF_HUB_DISABLE_IMPLICIT_TOKEN is set, so no token is sent: unset it."
    return (
        "Accept its terms on the Hub's page where it asks, then set HF_TOKEN, or run "
        "`hf auth login`."
    )


def _login(home: Origin | None) -> str | None:
    named = usual_endpoint()
    return named.basic if named.basic and _origin(named.public) == home else None


def _token() -> str | None:
    """Return the token that huggingface_hub finds, if it may be sent without being asked for.

    As in huggingface_hub (`get_token_to_send`), HF_HUB_DISABLE_IMPLICIT_TOKEN counts for HF_TOKEN,
    too: explicit is only what is handed to a function.
    """
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    path = constants.HF_TOKEN_PATH
    source = next((each for each in _VARIABLES if os.environ.get(each, "").strip()), path)
    try:
        with as_caller():
            token = get_token()
    except NotADirectoryError:  # such as HF_HOME=/dev/null
        return None
    except UnicodeDecodeError:
        raise _unusable(path) from None  # its words have bytes of the file
    except (hf.OIDCError, httpx2.HTTPError) as error:  # whose words may have what was sent
        raise AccessDeniedError(
            f"HF_OIDC_RESOURCE is set and gives no token ({type(error).__name__}).",
            "Unset HF_OIDC_RESOURCE, or set HF_OIDC_ID_TOKEN as huggingface_hub's page on trusted "
            "publishers says.",
        ) from None
    except OSError as error:
        raise UnusableTokenError(
            f"The token in {path} cannot be read: {error.strerror}."
        ) from error
    if token is not None and not _TOKEN.fullmatch(token):
        raise _unusable(source)
    return token


def _unusable(source: str) -> UnusableTokenError:
    return UnusableTokenError(f"The token in {source} has characters that no token has.")


def _origin(address: str) -> Origin | None:
    try:
        return origin(address)
    except ValueError:
        return None
