"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.openapi.spec import (
    OpenAPIMediaType,
    Operation,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIType
from litestar.types import ASGIApp

from backends.wire.openai_request import decode_request
from gateway.ids import request_id_of
from gateway.routes.guard import admit
from gateway.worker import Worker


class ChatOperation(Operation):
    """Documents the body, which the handler reads from the wire itself."""

    def __post_init__(self) -> None:
        """Describe the fields that every request has; all others are OpenAI's."""
        message = Schema(
            type=OpenAPIType.OBJECT,
            required=["role"],
            properties={
                "role": Schema(
                    type=OpenAPIType.STRING,
                    enum=["system", "developer", "user", "assistant", "tool"],
                ),
                "content": Schema(description="a string or a list of parts"),
            },
        )
        schema = Schema(
            type=OpenAPIType.OBJECT,
            required=["messages"],
            properties={
                "model": Schema(type=OpenAPIType.STRING),
                "messages": Schema(type=OpenAPIType.ARRAY, items=message, min_items=1),
                "stream": Schema(type=OpenAPIType.BOOLEAN),
                "max_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
            },
        )
        self.request_body = RequestBody(
            content={"application/json": OpenAPIMediaType(schema=schema)}, required=True
        )


@post(
    ["/v1/chat/completions", "/api/v1/chat/completions"],
    status_code=200,
    summary="Chat completion",
    description="OpenAI's Chat Completions, whole or streamed. See docs/api.md.",
    operation_class=ChatOperation,
)
async def chat(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer one chat request; full or unauthorized, before anything of its body is read."""
    worker: Worker = request.app.state.worker
    worker.check_room()
    caller = await admit(worker, request.scope["headers"])
    body = await worker.bodies.read(request.receive)
    try:
        decoded = decode_request(body)
    finally:
        worker.bodies.release(body)
    return worker.answer(decoded, caller, request_id_of(request.scope))
