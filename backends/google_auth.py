"""Access tokens of Google Cloud, fetched by google-auth."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Final

from backends.errors import ConnectionFailed, EndpointRejected
from backends.token_auth import Fetch, Token

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


def service_account(path: str) -> Fetch:
    """Return how tokens are had for the service account in a key file; each in a thread.

    The file is read again for every token, so that its key can be rotated. Needs the extra
    ``gcp``.

    Raises:
        ValueError: the file cannot be read, is of another kind, or the extra is not installed.
    """
    try:
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request
        from google.oauth2.service_account import Credentials
    except ImportError as error:
        raise ValueError("'credentials_file': needs google-auth; install tollway[gcp]") from error

    def credentials() -> Credentials:
        made: Credentials = Credentials.from_service_account_file(path, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        return made

    def fetch() -> Token:
        try:
            account = credentials()
            account.refresh(Request())  # type: ignore[no-untyped-call]
        except TransportError as error:
            raise ConnectionFailed("no connection to Google's token server") from error
        except (GoogleAuthError, OSError, ValueError) as error:
            # Its words may quote the file: they stay in the cause.
            raise EndpointRejected("no access token for the endpoint's service account") from error
        if not account.token or account.expiry is None:
            raise EndpointRejected("Google's token server gave no token that expires")
        return Token(account.token, account.expiry.replace(tzinfo=UTC).timestamp())

    try:
        credentials()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'credentials_file': {path!r} is no readable key file of a service account"
        ) from error
    return lambda: asyncio.to_thread(fetch)
