"""``POST /v1/completions``."""

from __future__ import annotations

from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from backends.wire.completions import COMPLETIONS
from gateway.routes.ask import asking

completions = asking(
    "/completions",
    COMPLETIONS,
    summary="Legacy completion",
    body=Schema(
        type=OpenAPIType.OBJECT,
        required=["prompt"],
        properties={
            "model": Schema(type=OpenAPIType.STRING),
            "prompt": Schema(description="a text, a list of texts, or lists of token ids"),
            "stream": Schema(type=OpenAPIType.BOOLEAN),
            "max_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
        },
    ),
)
