"""Access tokens of Google Cloud: fetched by google-auth, renewed before they expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Final, NamedTuple, TypeAlias

from backends.errors import BackendError, ConnectionFailed, EndpointRejected

RENEW_S: Final = 600.0
"""A token with less left is renewed while it still serves; Google's last an hour."""

SPARE_S: Final = 30.0
"""A token with less left is not used: it might expire on its way."""

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class Token(NamedTuple):
    """A bearer token."""

    text: str
    expires_s: float
    """Unix time."""


Fetch: TypeAlias = Callable[[], Token]
"""Gets a token, blocking; raises ``BackendError``."""


def service_account(path: str) -> Fetch:
    """Return how tokens are had for the service account in a key file.

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
    return fetch


class TokenAuth:
    """A bearer token that expires; one renewal at a time, in a thread.

    While the old token still serves, nobody waits for the new one.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.time) -> None:
        """``clock`` tells Unix time; nothing is fetched before the first request."""
        self._fetch = fetch
        self._clock = clock
        self._token: Token | None = None
        self._renewal: asyncio.Task[Token] | None = None

    async def ready(self) -> None:
        """See ``backends.auth.Auth``."""
        left_s = self._token.expires_s - self._clock() if self._token else 0.0
        if left_s > RENEW_S:
            return
        if self._renewal is None:
            self._renewal = asyncio.create_task(asyncio.to_thread(self._fetch))
            self._renewal.add_done_callback(self._renewed)
        if left_s <= SPARE_S:
            # Shielded: others wait for the same renewal, whoever leaves.
            await asyncio.shield(self._renewal)

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """See ``backends.auth.Auth``."""
        del url, body
        if self._token is None:
            raise EndpointRejected("the endpoint has no access token")
        return {"Authorization": f"Bearer {self._token.text}"}

    def failed(self, headers: Mapping[str, str], error: BackendError) -> None:
        """A token that was refused is fetched anew, unless it has been since."""
        if error.upstream_status == 401 and self._token is not None:
            current = self.headers("", b"")
            self._token = None if current.items() <= headers.items() else self._token

    def _renewed(self, renewal: asyncio.Task[Token]) -> None:
        self._renewal = None
        # A failure is its waiters' to report; the next request tries again.
        if not renewal.cancelled() and renewal.exception() is None:
            self._token = renewal.result()
