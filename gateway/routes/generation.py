"""``GET /v1/generation?id=``: the record of one request."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get

from gateway.errors import ErrorReply, GatewayError
from gateway.routes.guard import caller_of, require_key
from gateway.worker import Worker


@get(["/v1/generation", "/api/v1/generation"], guards=[require_key], summary="Generation record")
async def generation(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the record of a generation of the caller's account."""
    worker: Worker = request.app.state.worker
    wanted = request.query_params.get("id")
    if not wanted or len(wanted) > 128:
        raise GatewayError(ErrorReply(400, "the query needs 'id', a generation's id", "id"))
    record = await worker.ledger.generation(caller_of(request).account, wanted)
    if record is None:
        message = f"no generation {wanted!r} of this account; it may be over 30 days old"
        raise GatewayError(ErrorReply(404, message, "id"))
    body = msgspec.json.encode({"data": msgspec.Raw(record)})
    return Response(body, media_type="application/json")
