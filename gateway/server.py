"""Runs one worker's application on a listening socket, and drains it when told to stop."""

from __future__ import annotations

import socket

import uvicorn
from litestar.types import ASGIApp

from gateway.settings import ServerSettings

BACKLOG = 2048


def build(app: ASGIApp, settings: ServerSettings) -> uvicorn.Server:
    """Return the HTTP server for an application; it serves sockets that others bound."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: socket.socket, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT; then open streams finish within ``drain_seconds``.

    Blocks. What is still open after the grace time is cut and settled.
    """
    build(app, settings).run(sockets=[listener])
