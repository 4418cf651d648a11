"""Authentication, bound to handlers: a route names the guard, calls ``admit``, or is open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.auth import Caller
from gateway.worker import Worker


async def require_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Let callers with a working API key in.

    Raises:
        Unauthorized: anyone else.
    """
    worker: Worker = connection.app.state.worker
    connection.scope["auth"] = await admit(worker, connection.scope["headers"])


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Return the caller that ``require_key`` let in."""
    caller = connection.scope["auth"]
    assert isinstance(caller, Caller), "the handler has no require_key guard"
    return caller


async def admit(worker: Worker, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
    """Return who asks, by the request's headers.

    For a handler that cannot afford a guard: Litestar copies the handler for each call of one.

    Raises:
        Unauthorized: no working API key.
    """
    given = ""
    for name, value in headers:
        if name == b"authorization":
            given = value.decode("latin-1")
            break
        if name == b"x-api-key":  # as Anthropic's clients send it
            given = f"Bearer {value.decode('latin-1')}"
    return await worker.auth.authenticate(given)
