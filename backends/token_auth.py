"""Bearer tokens that expire: one renewal at a time, ahead of their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from backends.errors import BackendError, EndpointRejected

RENEW_S: Final = 600.0
"""A token with less left is renewed while it still serves; they mostly last an hour."""

SPARE_S: Final = 30.0
"""A token with less left is not used: it might expire on its way."""


class Token(NamedTuple):
    """A bearer token."""

    text: str
    expires_s: float
    """Unix time."""

    headers: Mapping[str, str] = {}
    """What must be sent with it."""


Fetch: TypeAlias = Callable[[], Coroutine[Any, Any, Token]]
"""Gets a token; raises ``BackendError``."""


class TokenAuth:
    """A bearer token that expires (``auth.Auth``).

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
            self._renewal = asyncio.create_task(self._fetch())
            self._renewal.add_done_callback(self._renewed)
        if left_s <= SPARE_S:
            # Shielded: others wait for the same renewal, whoever leaves.
            await asyncio.shield(self._renewal)

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """See ``backends.auth.Auth``."""
        del url, body
        if self._token is None:
            raise EndpointRejected("the endpoint has no access token")
        return {"Authorization": f"Bearer {self._token.text}", **self._token.headers}

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
