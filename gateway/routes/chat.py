"""``POST /v1/chat/completions``."""

from __future__ import annotations

from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from backends.wire.chat import CHAT
from gateway.routes.ask import asking

_MESSAGE = Schema(
    type=OpenAPIType.OBJECT,
    required=["role"],
    properties={
        "role": Schema(
            type=OpenAPIType.STRING, enum=["system", "developer", "user", "assistant", "tool"]
        ),
        "content": Schema(description="a string or a list of parts"),
    },
)

chat = asking(
    "/chat/completions",
    CHAT,
    summary="Chat completion",
    body=Schema(
        type=OpenAPIType.OBJECT,
        required=["messages"],
        properties={
            "model": Schema(type=OpenAPIType.STRING),
            "messages": Schema(type=OpenAPIType.ARRAY, items=_MESSAGE, min_items=1),
            "stream": Schema(type=OpenAPIType.BOOLEAN),
            "max_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
        },
    ),
)
