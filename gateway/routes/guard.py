"""Who and how many may come in, bound to handlers: a route names these guards or is open."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from gateway.auth import Caller
from gateway.worker import Worker


def require_room(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Let nobody in while this worker has no room; name it first, for it costs nothing.

    Raises:
        Overloaded: it has none.
    """
    worker: Worker = connection.app.state.worker
    worker.check_room()


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
