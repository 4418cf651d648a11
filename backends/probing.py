"""How adapters ask whether an upstream is there: one GET, and nothing that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from backends.auth import Auth
from backends.base import Probe
from backends.errors import BackendError
from backends.transport import Transport

_NO_SUCH_PAGE: Final = frozenset({404, 405, 501})
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


async def asked(
    transport: Transport,
    auth: Auth,
    path: str,
    *,
    read: Callable[[Any], frozenset[str]] | None,
    deadline: float,
) -> Probe:
    """Ask for a list of models, or only for a good status.

    A server without the page has answered nevertheless.

    Args:
        transport: the way to the upstream.
        auth: the endpoint's credential.
        path: what to ask for.
        read: finds the names in the list, raising ``LookupError`` or ``TypeError`` where there
            are none; None where the body says nothing.
        deadline: the event loop's time by which it returns, seconds.
    """
    credential: Mapping[str, str] = {}
    try:
        async with asyncio.timeout_at(deadline):
            await auth.ready()
            credential = auth.headers(transport.url(path), b"")
            body = await transport.get(path, {**_HEADERS, **credential})
    except TimeoutError:
        return Probe(False, "no answer in time")
    except BackendError as error:
        if error.upstream_status in _NO_SUCH_PAGE:
            return Probe(True, "answers")
        status = f"{error.upstream_status}: " if error.upstream_status else ""
        error.redact(credential.values())
        return Probe(False, f"{status}{error.message}")
    if read is None:
        return Probe(True, "answers")
    try:
        return Probe(True, "answers", read(msgspec.json.decode(body)))
    except (msgspec.DecodeError, LookupError, TypeError):
        return Probe(False, "answers, but not with a list of models: look at 'base_url'")
