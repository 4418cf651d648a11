"""Credentials: where a secret comes from, and the headers it turns into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from backends.errors import BackendError, EndpointRejected

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
        """Note that a request with these headers was refused or limited."""
        ...


class KeyAuth:
    """One of some API keys, in a header."""

    def __init__(
        self, keys: Sequence[Secret], header: str = "Authorization", scheme: str = "Bearer "
    ) -> None:
        """``scheme`` stands before the key, as in ``Bearer``."""
        self._keys = tuple(keys)
        self._header = header
        self._scheme = scheme

    async def ready(self) -> None:
        """Nothing to renew."""

    def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """See ``Auth``; nothing where the upstream needs no key."""
        del url, body
        key = self._keys[0]() if self._keys else None
        if not key:
            return {}
        if not (key.isascii() and key.isprintable()):
            raise EndpointRejected("the endpoint's API key has characters that no header may carry")
        return {self._header: f"{self._scheme}{key}"}

    def failed(self, headers: Mapping[str, str], error: BackendError) -> None:
        """Nothing is remembered of one key."""
