"""Runs one worker's application on a listening socket, and drains it when told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from math import ceil
from typing import Any, Final, cast

import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.event_stream import CUT
from gateway.settings import ServerSettings

BACKLOG: Final = 2048


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with the two things that it lacks for answers that last.

    An application can cut it: closing waits until the client has read what is buffered, which
    a client that stopped reading never does. And a lost connection ends the request that is
    being answered: uvicorn (0.54) tells only the newest one, so that a client which pipelines
    a second request and leaves would have the first one answered, and billed, to the end.
    """

    _answering: RequestResponseCycle | None = None

    def on_message_begin(self) -> None:
        """Offer ``CUT`` in the scope of the request that begins."""
        super().on_message_begin()
        scope = cast(dict[str, Any], self.scope)
        scope["extensions"] = {CUT: self.cut}

    def cut(self) -> None:
        """Close the connection now, whatever the client has not read yet."""
        self._lose()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, too."""
        self._lose()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Any]) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _lose(self) -> None:
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()


def build(app: ASGIApp, settings: ServerSettings) -> uvicorn.Server:
    """Return the HTTP server for an application; it serves sockets that others bound."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=ceil(settings.drain_seconds),
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, listener: socket.socket, settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT; then open streams finish within ``drain_seconds``.

    Blocks. What is still open after the grace time is cut and settled.
    """
    build(app, settings).run(sockets=[listener])
