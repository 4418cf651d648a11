"""``POST /v1/embeddings``."""

from __future__ import annotations

from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from backends.wire.embeddings import EMBEDDINGS
from gateway.routes.ask import asking

embeddings = asking(
    "/embeddings",
    EMBEDDINGS,
    summary="Embeddings",
    body=Schema(
        type=OpenAPIType.OBJECT,
        required=["input"],
        properties={
            "model": Schema(type=OpenAPIType.STRING),
            "input": Schema(description="a text, a list of texts, or lists of token ids"),
            "dimensions": Schema(type=OpenAPIType.INTEGER, minimum=1),
            "encoding_format": Schema(type=OpenAPIType.STRING, enum=["float", "base64"]),
        },
    ),
)
