"""Credentials: where a secret comes from, and the headers it turns into."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backends.errors import EndpointRejected


def bearer(api_key: Callable[[], str | None]) -> Mapping[str, str]:
    """Return the Authorization header for a key, or none where the upstream needs none.

    Raises:
        EndpointRejected: the key has characters that no header may carry.
    """
    key = api_key()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise EndpointRejected("the endpoint's API key has characters that no header may carry")
    return {"Authorization": f"Bearer {key}"}
