"""The Litestar application of one worker: routes, error shapes, request ids."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import HttpMethod, Litestar, Request, Response, route
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway import __version__
from gateway.body import ClientGone, Upload
from gateway.clock import Times
from gateway.errors import BodyTooSlow, ErrorReply, NotOffered, Overloaded, internal, reply_for
from gateway.ids import REQUEST_ID, request_id, request_id_of
from gateway.log import log_fault
from gateway.routes import (
    catalogue,
    chat,
    completions,
    embeddings,
    generation,
    messages,
    operations,
    responses,
)
from gateway.routes.ask import dialect_of
from gateway.settings import ServerSettings
from gateway.wiring import WorkerConfig, running

NOT_OFFERED = {
    "audio": "audio is not offered by this gateway",
    "images": "image generation is not offered by this gateway",
    "videos": "video is not offered by this gateway",
    "rerank": "reranking is not offered by this gateway",
    "batches": "batches are not offered by this gateway",
    "files": "file stores are not offered by this gateway",
    "realtime": "the realtime API is not offered by this gateway",
    "fine_tuning": "fine-tuning is not offered by this gateway",
    "moderations": "moderation is not offered by this gateway",
}
_PREFIXES = ("/v1", "/api/v1")
FULL_DISCARD_S = 0.5
"""A worker that is full says so at once: it reads on for what is on its way, and no longer."""


def create_app(config: WorkerConfig) -> ASGIApp:
    """Return the application; its worker starts and stops with the ASGI lifespan."""
    return outermost(create_routes(config), config.settings.server)


def create_routes(config: WorkerConfig, times: Times | None = None) -> Litestar:
    """Return the routes alone; ``app.state.worker`` is the worker while it runs."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with running(config, times) as worker:
            app.state.worker = worker
            yield

    return Litestar(
        route_handlers=[
            chat.chat,
            messages.messages,
            messages.count_tokens,
            responses.responses,
            responses.stored,
            completions.completions,
            embeddings.embeddings,
            catalogue.models,
            catalogue.embedding_models,
            generation.generation,
            operations.live,
            operations.ready,
            operations.metrics,
            *_not_offered(),
        ],
        exception_handlers={Exception: answer_error},
        lifespan=[lifespan],
        openapi_config=OpenAPIConfig(title="Tollway", version=__version__, path="/schema"),
        logging_config=None,
        request_max_body_size=None,  # the handlers read bodies within bounds of their own
    )


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any error in the shape that the route's clients know."""
    reply = reply_for(error)
    dialect = dialect_of(request)
    if isinstance(error, HTTPException):
        reply = _http_reply(request, error)
    elif isinstance(error, ClientGone):
        reply = ErrorReply(400, "the request was not complete")
    elif reply is None:
        log_fault(error, request_id_of(request.scope))
        reply = internal()
    worker = getattr(request.app.state, "worker", None)
    if worker is not None:
        worker.metrics.refused(reply)
        worker.metrics.turned_away(reply, dialect.name, request_id_of(request.scope))
    return Response(
        dialect.error(reply.body()),
        status_code=reply.status,
        media_type="application/json",
        headers=dict(reply.headers),
    )


def outermost(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    """Give every request an id, every answer its header, and clients time to read a refusal."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        given = next((v for k, v in scope["headers"] if k == b"x-request-id"), None)
        name = request_id(None if given is None else given.decode("latin-1"))
        scope["state"][REQUEST_ID] = name
        upload = Upload(scope, receive)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"x-request-id", name.encode())]
                if not upload.ended:
                    if message["status"] != BodyTooSlow.status:
                        full = message["status"] == Overloaded.status
                        most_s = FULL_DISCARD_S if full else settings.discard_body_s
                        await upload.discard(settings, most_s=most_s)
                    if not upload.ended:
                        headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        await app(scope, upload.receive, named)

    return wrapped


def _http_reply(request: Request[Any, Any, Any], error: HTTPException) -> ErrorReply:
    path = request.scope["path"]
    if error.status_code == 404:
        return ErrorReply(404, f"no route {path!r}; the routes are at /schema")
    if error.status_code == 405:
        headers = error.headers or {}
        return ErrorReply(405, f"{request.method} is not allowed on {path!r}", headers=headers)
    return ErrorReply(error.status_code, error.detail)


def _not_offered() -> list[Any]:
    handlers = []
    for name, message in NOT_OFFERED.items():
        paths = [f"{prefix}/{name}" for prefix in _PREFIXES]
        paths += [f"{prefix}/{name}/{{rest:path}}" for prefix in _PREFIXES]
        handlers.append(_refusal(name, paths, message))
    return handlers


def _refusal(name: str, paths: list[str], message: str) -> Any:
    @route(
        paths,
        http_method=[
            HttpMethod.GET,
            HttpMethod.POST,
            HttpMethod.PUT,
            HttpMethod.PATCH,
            HttpMethod.DELETE,
        ],
        name=f"not offered: {name}",
        include_in_schema=False,
        status_code=404,
        sync_to_thread=False,
    )
    def refuse() -> None:
        raise NotOffered(message)

    return refuse
