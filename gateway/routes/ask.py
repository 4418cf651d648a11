"""The handlers that answer a model's clients: one for each dialect, all the same."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.types import ASGIApp

from backends.wire.chat import CHAT
from backends.wire.dialect import Dialect
from gateway.ids import request_id_of
from gateway.routes.guard import admit
from gateway.worker import Worker

PREFIXES = ("/v1", "/api/v1")
DIALECT = "dialect"
"""The key of a handler's options under which its clients' dialect stands."""


def asking(path: str, dialect: Dialect, *, summary: str, body: Schema) -> HTTPRouteHandler:
    """Return the handler of a path (below ``/v1``) whose clients speak a dialect.

    Args:
        path: such as ``/chat/completions``.
        dialect: how requests and answers look.
        summary: the route's title in the API's description.
        body: the fields that every request has, for the same.
    """

    class AskOperation(Operation):
        """Documents the body, which the handler reads from the wire itself."""

        def __post_init__(self) -> None:
            """Describe the body."""
            content = {"application/json": OpenAPIMediaType(schema=body)}
            self.request_body = RequestBody(content=content, required=True)

    @post(
        [prefix + path for prefix in PREFIXES],
        status_code=200,
        name=dialect.name,
        summary=summary,
        description="Whole or streamed. See docs/api.md.",
        operation_class=AskOperation,
        opt={DIALECT: dialect},
    )
    async def ask(request: Request[Any, Any, Any]) -> ASGIApp:
        """Answer one request; full or unauthorized, before anything of its body is read."""
        worker: Worker = request.app.state.worker
        worker.check_room()
        caller = await admit(worker, request.scope["headers"])
        body = await worker.bodies.read(request.receive)
        try:
            decoded = dialect.decode(body)
        finally:
            worker.bodies.release(body)
        return worker.answer(decoded, dialect, caller, request_id_of(request.scope))

    return ask


def dialect_of(request: Request[Any, Any, Any]) -> Dialect:
    """Return the dialect of the route that a request was for; OpenAI's where there is none."""
    handler = request.scope.get("route_handler")
    dialect = handler.opt.get(DIALECT) if handler is not None else None
    return dialect if isinstance(dialect, Dialect) else CHAT
