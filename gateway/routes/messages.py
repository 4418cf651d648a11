"""``POST /v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from backends.types import ChatRequest
from backends.wire.messages import MESSAGES
from backends.wire.messages_reply import input_estimate
from backends.wire.messages_request import decode_count
from gateway.auth import Caller
from gateway.routes.ask import DIALECT, PREFIXES, asking
from gateway.routes.guard import admit
from gateway.worker import Worker

_MESSAGE = Schema(
    type=OpenAPIType.OBJECT,
    required=["role", "content"],
    properties={
        "role": Schema(type=OpenAPIType.STRING, enum=["user", "assistant", "system"]),
        "content": Schema(description="a string or a list of blocks"),
    },
)

messages = asking(
    "/messages",
    MESSAGES,
    summary="Message",
    body=Schema(
        type=OpenAPIType.OBJECT,
        required=["messages", "max_tokens"],
        properties={
            "model": Schema(type=OpenAPIType.STRING),
            "messages": Schema(type=OpenAPIType.ARRAY, items=_MESSAGE, min_items=1),
            "max_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
            "stream": Schema(type=OpenAPIType.BOOLEAN),
        },
    ),
)


@post(
    [f"{prefix}/messages/count_tokens" for prefix in PREFIXES],
    status_code=200,
    name="count_tokens",
    summary="Count the tokens of a message",
    description="By the model's tokenizer or its upstream where they count, else an estimate that "
    "says so.",
    opt={DIALECT: MESSAGES},
)
async def count_tokens(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Count or estimate a request; no model is asked, nothing is charged."""
    worker: Worker = request.app.state.worker
    worker.check_room()
    caller = await admit(worker, request.scope["headers"])
    body = await worker.bodies.read(request.receive)
    try:
        asked = decode_count(body)
    finally:
        worker.bodies.release(body)
    counted = await _counted(worker, caller, asked)
    return Response(
        msgspec.json.encode(
            {"input_tokens": input_estimate(asked) if counted is None else counted}
        ),
        media_type="application/json",
        headers={"X-Tollway-Estimate": "true"} if counted is None else None,
    )


async def _counted(worker: Worker, caller: Caller, asked: ChatRequest) -> int | None:
    """Return the exact count of texts and tools, where it can be had for the first endpoint."""
    found = worker.table.described(asked.models[0])
    if found is None:
        return None
    _, endpoints = found
    return await worker.counts.of_texts(caller.account, endpoints[0], asked)
