"""Credentials: where a secret comes from, and the headers it turns into."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from backends.errors import BackendError, EndpointRejected, RateLimited

QUOTA_HEADER: Final = "x-goog-user-project"
"""Google's: which project pays."""

NO_SECRETS: Final = frozenset({QUOTA_HEADER})
"""Headers that go with a credential, and may be told of."""

Secret = Callable[[], str | None]
"""Gives a secret as it is now, so that none is in a repr and all can rotate; None for none."""


class Auth(Protocol):
    """Puts a credential into one request after another."""

    async def ready(self) -> None:
        """Renew what has to be renewed before the next request; mostly nothing.

        Raises:
            BackendError: no credential can be had.
        """
        ...

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that authenticate a POST of ``body`` to ``url``.

        Raises:
            EndpointRejected: there is no usable credential.
        """
        ...

    def failed(self, headers: Mapping[str, str], error: BackendError) -> None:
        """Note that a request with these headers was refused or limited.

        Sets ``error.other_credential`` where another credential may do.
        """
        ...


REFUSED_S: Final = 60.0
"""How long a credential rests that was refused."""

LIMITED_S: Final = 10.0
"""How long one rests that was limited by an upstream that did not say for how long."""

MOST_S: Final = 3600.0


class KeyAuth:
    """One of some API keys after another, in a header; one that was turned away rests."""

    def __init__(
        self,
        keys: Sequence[Secret],
        header: str = "Authorization",
        scheme: str = "Bearer ",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``scheme`` stands before the key, as in ``Bearer``; ``now`` gives seconds."""
        self._keys = tuple(keys)
        self._header = header
        self._scheme = scheme
        self._now = now
        self._next = 0
        self._rests: dict[str, float] = {}
        """Until when a header's value is not to be used, where there are others."""

    async def ready(self) -> None:
        """Nothing to renew."""

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """See ``Auth``; nothing where the upstream needs no key."""
        del url, body
        if len(self._keys) < 2:
            value = self._value(self._keys[0]) if self._keys else None
        else:
            value = self._turn()
        return {} if value is None else {self._header: value}

    def failed(self, headers: Mapping[str, str], error: BackendError) -> None:
        """Let the credential rest that was refused or limited, and say if another is left."""
        if len(self._keys) < 2:
            return
        if isinstance(error, RateLimited):
            asked_s = LIMITED_S if error.retry_after_s is None else error.retry_after_s
            rest_s = min(max(asked_s, 1.0), MOST_S)
        elif isinstance(error, EndpointRejected) and error.credential_refused:
            rest_s = REFUSED_S
        else:
            return
        now = self._now()
        self._rests = {value: until for value, until in self._rests.items() if until > now}
        self._rests[headers.get(self._header, "")] = now + rest_s
        error.other_credential = any(self._value(key) not in self._rests for key in self._keys)

    def _turn(self) -> str | None:
        """Return the next credential that does not rest, or the one whose rest ends first."""
        count, now = len(self._keys), self._now()
        order = [self._keys[(self._next + step) % count] for step in range(count)]
        values = [self._value(key) for key in order]
        ends = [self._rests.get(value or "", 0.0) for value in values]
        at = next((at for at, end in enumerate(ends) if end <= now), ends.index(min(ends)))
        self._next = (self._next + at + 1) % count
        return values[at]

    def _value(self, secret: Secret) -> str | None:
        key = secret()
        if not key:
            return None
        if not (key.isascii() and key.isprintable()):
            raise EndpointRejected("the endpoint's API key has characters that no header may carry")
        return f"{self._scheme}{key}"
