"""The engine's HTTP side: a Litestar app over one model that may still be loading."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any, Literal

from litestar import Litestar, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from local_engine import wire
from local_engine.chat import ChatReply
from local_engine.errors import RequestRefused
from local_engine.metrics import EngineMetrics
from local_engine.params import decode_chat
from local_engine.service import Caller, Service

_logger = logging.getLogger(__name__)
_MAX_BODY_BYTES = 20_000_000
_MAX_HEADER_CHARS = 256
_STALE_S = 60.0
_RETRY_AFTER_S = 5

Phase = Literal["loading", "ok", "draining"]


class Host:
    """What the app serves: a name at once, a model when loaded, nothing new while it drains."""

    def __init__(self, model: str) -> None:
        """Start loading."""
        self.model = model
        self.metrics = EngineMetrics(model)
        self.phase: Phase = "loading"
        self.service: Service | None = None
        self.window_tokens: int | None = None
        self.created_s = int(time.time())

    def ready(self, service: Service, window_tokens: int) -> None:
        """Serve requests from now on, unless draining has begun."""
        self.service = service
        self.window_tokens = window_tokens
        if self.phase == "loading":
            self.phase = "ok"

    def drain(self) -> None:
        """Take no new requests from now on."""
        self.phase = "draining"

    def status(self) -> str:
        """Return the phase, or `stalled` when the engine has work and makes no progress."""
        if self.phase == "ok" and self.service is not None and self.service.is_stalled(_STALE_S):
            return "stalled"
        return self.phase

    def open_service(self) -> Service:
        """Return the service for one more request.

        Raises:
            RequestRefused: 503; the model is loading or the engine is draining.
        """
        if self.phase == "ok" and self.service is not None:
            return self.service
        raise RequestRefused(
            f"the engine is {self.phase}",
            code=self.phase,
            status=503,
            retry_after_s=_RETRY_AFTER_S,
        )


def create_app(host: Host) -> Litestar:
    """Return the ASGI app; it holds no state but the host's."""
    return Litestar(
        route_handlers=[_chat_route(host), *_read_routes(host)],
        exception_handlers={
            RequestRefused: _refuse,
            HTTPException: _refuse_http,
            Exception: _refuse_unknown,
        },
        request_max_body_size=_MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
    )


def _chat_route(host: Host) -> HTTPRouteHandler:
    @post("/v1/chat/completions", status_code=200)
    async def chat_completions(request: Request[Any, Any, Any]) -> ASGIApp:
        chat = decode_chat(await request.body())
        if chat.model != host.model:
            raise RequestRefused(
                f"the model {chat.model!r} is not served here, only {host.model!r}",
                param="model",
                code="model_not_found",
                status=404,
            )
        caller = _read_caller(request)
        return ChatReply(host.open_service(), chat, caller, _read_request_id(request))

    return chat_completions


def _read_routes(host: Host) -> list[HTTPRouteHandler]:
    @get("/health")
    async def health() -> Response[dict[str, str]]:
        status = host.status()
        return Response({"status": status}, status_code=200 if status == "ok" else 503)

    @get("/v1/models")
    async def models() -> dict[str, Any]:
        card = {
            "id": host.model,
            "object": "model",
            "created": host.created_s,
            "owned_by": "local_engine",
            "max_model_len": host.window_tokens,
        }
        return {"object": "list", "data": [card]}

    @get("/metrics")
    async def metrics() -> Response[bytes]:
        return Response(host.metrics.render(), media_type=host.metrics.content_type)

    return [health, models, metrics]


def _read_request_id(request: Request[Any, Any, Any]) -> str:
    given = request.headers.get("x-request-id", "")
    usable = 0 < len(given) <= _MAX_HEADER_CHARS and given.isascii() and given.isprintable()
    return given if usable else uuid.uuid4().hex


def _read_caller(request: Request[Any, Any, Any]) -> Caller:
    """Read the headers that the gateway sends along."""
    deadline_ms = _read_integer(request, "x-tollway-deadline-ms")
    max_output = _read_integer(request, "x-tollway-max-output")
    if max_output is not None and max_output < 1:
        name = "x-tollway-max-output"
        raise RequestRefused(f"the header {name} must be at least 1, not {max_output}", param=name)
    return Caller(
        account=request.headers.get("x-tollway-account", "")[:_MAX_HEADER_CHARS],
        priority=_read_integer(request, "x-tollway-priority") or 0,
        deadline_s=None if deadline_ms is None else time.monotonic() + deadline_ms / 1000,
        max_output=max_output,
    )


def _read_integer(request: Request[Any, Any, Any], name: str) -> int | None:
    text = request.headers.get(name)
    if text is None:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise RequestRefused(f"the header {name} must be an integer, not {text!r}", param=name)
    return int(text)


def _refuse(request: Request[Any, Any, Any], refused: RequestRefused) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in wire.error_headers(refused)}
    headers["x-request-id"] = _read_request_id(request)
    return Response(
        wire.error_body(refused),
        status_code=refused.status,
        headers=headers,
        media_type="application/json",
    )


def _refuse_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    code = "not_found" if error.status_code == 404 else "http_error"
    return _refuse(request, RequestRefused(error.detail, code=code, status=error.status_code))


def _refuse_unknown(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _logger.error("a route failed", exc_info=error)
    return _refuse(request, RequestRefused("the engine failed", code="internal_error", status=500))
