"""The one TLS context: whose certificates dsollama trusts.

Every connection takes it from here: huggingface_hub's client, the ranges, an Ollama by https. So
one of these variables is enough for all of them, and where more are set, all that they name count:

- SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE: a file of certificates (PEM), or a folder;
- SSL_CERT_DIR: folders, with colons between them, as `openssl rehash` makes them.

Without any of them the certificates of the system count, and those of certifi, for a system that
has none. They are the caller's, and read as the caller.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from certifi import where

from dsollama.errors import CertificateError, UsageError, causes
from dsollama.limits import limit_error
from dsollama.privileges import as_caller

FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
FOLDERS = "SSL_CERT_DIR"


def tls_context() -> ssl.SSLContext:
    """Return the context for every connection of this process; it may be shared by threads.

    Raises:
        UsageError: a variable names no file or folder, or a file without certificates.
    """
    with as_caller():
        return _context(tuple(_named(os.environ)))


def certificate_error(error: BaseException, address: str) -> CertificateError | None:
    """Return what a client's failure says of the server's certificate; None for other failures.

    Args:
        error: what the client raised.
        address: of the server, as it may be shown.
    """
    for each in causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            reason = each.verify_message.rstrip(".") or "it cannot be verified"
            found = CertificateError(f"The certificate of {address} is not trusted: {reason}.")
            found.__cause__ = error
            return found
    return None


def _named(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that is set, with one path of its value."""
    for variable in FILES:
        if environ.get(variable, "").strip():
            yield variable, environ[variable].strip()
    folders = [each for each in environ.get(FOLDERS, "").split(os.pathsep) if each.strip()]
    there = [each for each in folders if Path(each).is_dir()]  # one of a list need not be
    yield from ((FOLDERS, each) for each in there or folders[:1])


@lru_cache(maxsize=4)
def _context(named: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if named else _of_the_system()
    for variable, path in named:
        _load(context, variable, Path(path))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # As curl and Go do: a company's own intermediate certificate may be trusted by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _of_the_system() -> ssl.SSLContext:
    """Trust what the system trusts, wherever it keeps that (httpx2 knows), and certifi's."""
    import httpx2  # noqa: PLC0415 - slow, and not for every command

    context = httpx2.create_ssl_context(trust_env=False)
    context.load_verify_locations(where())
    return context


def _load(context: ssl.SSLContext, variable: str, path: Path) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        elif path.is_file():
            context.load_verify_locations(cafile=path)
        else:
            raise _unusable(variable, path, "which is not there")
    except ssl.SSLError as error:
        raise _unusable(variable, path, "which holds no certificates in PEM form") from error
    except OSError as error:
        limit = limit_error(error)
        if limit:
            raise limit from error
        reason = (error.strerror or str(error)).lower()
        raise _unusable(variable, path, f"which cannot be read: {reason}") from error


def _unusable(variable: str, path: Path, why: str) -> UsageError:
    return UsageError(
        f"{variable} names {path}, {why}.",
        f"Let {variable} name a file of certificates in PEM form, or unset it: then those of the "
        "system count.",
    )
