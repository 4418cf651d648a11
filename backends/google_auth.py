"""Access tokens of Google Cloud, fetched by google-auth (extra ``gcp``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

from backends.auth import QUOTA_HEADER
from backends.errors import ConnectionFailed, EndpointRejected
from backends.token_auth import Fetch, Token

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


def service_account(path: str) -> Fetch:
    """Return how tokens are had for the service account in a key file; each in a thread.

    The file is read again for every token, so that its key can be rotated.

    Raises:
        ValueError: the file cannot be read, is of another kind, or the extra is not installed.
    """
    try:
        from google.auth.transport import requests as _  # noqa: F401 - what fetches them
        from google.oauth2.service_account import Credentials
    except ImportError as error:
        raise ValueError("'credentials_file': needs google-auth; install tollway[gcp]") from error

    def credentials() -> Credentials:
        made: Credentials = Credentials.from_service_account_file(path, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        return made

    try:
        credentials()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'credentials_file': {path!r} is no readable key file of a service account"
        ) from error
    return _tokens(credentials, "no access token for the endpoint's service account")


def application_default() -> Fetch:
    """Return how tokens are had with Application Default Credentials; each in a thread.

    They are looked for with the first request, as that may ask the machine's metadata server: a
    file that ``GOOGLE_APPLICATION_CREDENTIALS`` names, gcloud's own, the account of the machine.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        from google.auth import default
        from google.auth.transport import requests as _  # noqa: F401 - what fetches them
    except ImportError as error:
        raise ValueError(
            "no key and no 'credentials_file': to use Google's default credentials install "
            "tollway[gcp]"
        ) from error
    return _tokens(
        lambda: default(scopes=[SCOPE])[0],
        "no Google credentials: give 'credentials_file' or 'access_token_env', set "
        "GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached",
    )


def _tokens(credentials: Callable[[], Any], failure: str) -> Fetch:
    """Return how tokens of some credentials are had; ``failure`` is told where there are none."""
    from google.auth.exceptions import TransportError
    from google.auth.transport.requests import Request

    def fetch() -> Token:
        try:
            account = credentials()
            account.refresh(Request())
        except TransportError as error:
            raise ConnectionFailed("no connection to Google's token server") from error
        except Exception as error:
            # A strange file may raise anything. The words may quote it: they stay in the cause.
            raise EndpointRejected(failure) from error
        if not account.token or account.expiry is None:
            raise EndpointRejected("Google's token server gave no token that expires")
        payer = getattr(account, "quota_project_id", None)  # a person's credentials name one
        return Token(
            account.token,
            account.expiry.replace(tzinfo=UTC).timestamp(),
            {QUOTA_HEADER: payer} if payer else {},
        )

    return lambda: asyncio.to_thread(fetch)
