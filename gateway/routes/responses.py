"""``POST /v1/responses``, stateless; what would need a store is a 404 that says so."""

from __future__ import annotations

from litestar import HttpMethod, route
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType

from backends.wire.responses import RESPONSES
from gateway.errors import NotOffered
from gateway.routes.ask import PREFIXES, asking

responses = asking(
    "/responses",
    RESPONSES,
    summary="Response",
    body=Schema(
        type=OpenAPIType.OBJECT,
        required=["input"],
        properties={
            "model": Schema(type=OpenAPIType.STRING),
            "input": Schema(description="a text or a list of items"),
            "instructions": Schema(type=OpenAPIType.STRING),
            "stream": Schema(type=OpenAPIType.BOOLEAN),
            "max_output_tokens": Schema(type=OpenAPIType.INTEGER, minimum=1),
        },
    ),
)


@route(
    [f"{prefix}/responses/{{rest:path}}" for prefix in PREFIXES],
    http_method=[HttpMethod.GET, HttpMethod.POST, HttpMethod.DELETE],
    name="not offered: stored responses",
    include_in_schema=False,
    status_code=404,
    sync_to_thread=False,
)
def stored() -> None:
    """Say that no response is kept."""
    raise NotOffered("responses are not stored by this gateway: send the conversation as 'input'")
