"""Authentication, bound to handlers: a route names this guard or is open to everyone."""

from __future__ import annotations

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
    caller = await worker.auth.authenticate(connection.headers.get("authorization"))
    connection.scope["auth"] = caller


def caller_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Return the caller that ``require_key`` let in."""
    caller = connection.scope["auth"]
    assert isinstance(caller, Caller), "the handler has no require_key guard"
    return caller
