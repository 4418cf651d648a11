"""Runs one worker's application on a listening socket, and drains it when told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import select
import signal
import socket
import sys
import termios
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any, Final, cast

import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from backends.wire.chat import CHAT
from gateway.clock import Times
from gateway.errors import ErrorReply
from gateway.ids import request_id
from gateway.reply import Reply, offer, withdraw
from gateway.settings import ServerSettings

BACKLOG: Final = 2048
WRITE_BYTES: Final = 32 * 1024
"""So much may wait for a client before its answer does."""

PEEK_S: Final = 0.5
"""How often a client is looked at whose next request waits behind the one being answered."""

LEFT: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
LOOKS: Final = 30
"""How often a reader is looked at in the time after which it is cut."""

MOST_TAKEN: Final = 100
"""Connections taken from another worker's queue in one look."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with what it lacks for clients that are slow, endless or gone.

    A lost connection ends the request that is being answered: uvicorn (0.54) tells only the
    newest one, so that a client which pipelines a second request and leaves would have the
    first one answered, and billed, to the end.

    A request's head is bounded in bytes and time. A client that takes nothing of what is
    buffered for it is cut; uvicorn waits for no answer's last write, so nobody else would.
    """

    def __init__(
        self, *args: Any, settings: ServerSettings, now: Callable[[], float], **more: Any
    ) -> None:
        """``now`` is a monotonic clock in seconds, by which readers are judged."""
        super().__init__(*args, **more)
        self._settings = settings
        self._now = now
        self._answering: RequestResponseCycle | None = None
        self._reply: Reply | None = None
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._look_timer: asyncio.TimerHandle | None = None
        self._peek_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._unread_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Parse; in a request's head no further than it may be long."""
        while self._in_head and data and not self._refused and not self.transport.is_closing():
            room = self._settings.max_head_bytes - self._head_bytes
            piece, data = data[:room], data[room:]
            self._head_bytes += len(piece)
            super().data_received(piece)
            if not self._in_head or not self._head_bytes:
                continue
            if self._head_bytes >= self._settings.max_head_bytes:
                limit = self._settings.max_head_bytes
                self._refuse(ErrorReply(431, f"the headers are over the limit of {limit} bytes"))
            elif self._head_timer is None:
                self._await_head()
        if self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.discard_body_bytes:
                self.transport.abort()
        elif data and not self.transport.is_closing():
            super().data_received(data)

    def on_headers_complete(self) -> None:
        """From here on the application bounds the request."""
        self._in_head = False
        _stop(self._head_timer)
        self._head_timer = None
        super().on_headers_complete()
        if self.pipeline and self._peek_timer is None:
            self.peek()

    def on_message_complete(self) -> None:
        """What comes next is another request's head."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the client to take the rest; let go of the request, which refers to itself."""
        if self._answering is not None:
            withdraw(self._answering.scope)
        super().on_response_complete()
        self._await_reader()

    def pause_writing(self) -> None:
        """Wait for the client to take some of it."""
        super().pause_writing()
        self._await_reader()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the shape of all errors."""
        self._refuse(ErrorReply(400, msg))

    def cut(self) -> None:
        """Close the connection now, whatever the client has not read yet."""
        self._lose()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, too."""
        _stop(self._head_timer)
        _stop(self._look_timer)
        _stop(self._peek_timer)
        self._lose()
        super().connection_lost(exc)

    def look(self) -> None:
        """Cut a client whose socket took nothing for ``slow_reader_s``."""
        _stop(self._look_timer)
        self._look_timer = None
        if not self.transport.get_write_buffer_size():
            return
        unread = unread_bytes(self.transport)
        if unread != self._unread:
            self._unread, self._unread_since = unread, self._now()
        elif self._now() - self._unread_since >= self._settings.slow_reader_s:
            self.cut()
            return
        self._look_timer = self.loop.call_later(self._settings.slow_reader_s / LOOKS, self.look)

    def peek(self) -> None:
        """Notice that a client has left while its next request waits: nothing is read then."""
        _stop(self._peek_timer)
        self._peek_timer = None
        if not self.pipeline or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), LEFT)
        if poll.poll(0):
            self.cut()
        else:
            self._peek_timer = self.loop.call_later(PEEK_S, self.peek)

    def _await_reader(self) -> None:
        if self._look_timer is None:
            self._unread = 0
            self.look()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.read_head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._is_answering():  # we may have paused reading ourselves
            self._await_head()
        elif self._head_bytes:
            limit = self._settings.read_head_s
            self._refuse(ErrorReply(408, f"the headers did not arrive within {limit:g} s"))
        else:
            self.transport.close()

    def _refuse(self, reply: ErrorReply) -> None:
        """Answer what never became a request, and give the client time to read it."""
        _stop(self._head_timer)
        if self._is_answering():
            self.cut()
            return
        self._refused = True
        body = CHAT.error(reply.body())
        lines = (
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id(None)}",
            "connection: close",
        )
        head = STATUS_LINE[reply.status] + "\r\n".join((*lines, "", "")).encode()
        self.transport.write(head + body)
        self.transport.write_eof()
        self._head_timer = self.loop.call_later(self._settings.discard_body_s, self.transport.abort)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Any]) -> None:
        self._answering = cycle
        self._reply = Reply(cycle)
        offer(cycle.scope, self._reply)
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _lose(self) -> None:
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if self._reply is not None and self._reply.on_lost is not None:
                on_lost, self._reply.on_lost = self._reply.on_lost, None
                on_lost()


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the client's socket has not taken: buffered here and in the kernel.

    The kernel asks for more only when a third of its megabytes is free, so that our buffer
    alone says nothing for minutes while a slow reader goes on.
    """
    queued = bytes(4)
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    except (OSError, ValueError):  # not known on this system: what the kernel takes must do
        pass
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


class Server(uvicorn.Server):
    """uvicorn's server, which also takes what waits in the queues of other workers.

    A worker empties its queue at once, so that a connection which is found there in passing
    belongs to one that is dead, blocked or draining, and would wait for it.
    """

    def __init__(self, config: uvicorn.Config, others: Sequence[socket.socket]) -> None:
        """``others`` are the other workers' listeners, non-blocking, which are ours to close."""
        super().__init__(config)
        self._others = others
        self._retiring = False

    def retire(self) -> None:
        """Accept nothing any more, and leave when the last answer is out, however late."""
        self._retiring = True

    async def on_tick(self, counter: int) -> bool:
        """Look into the other queues, ten times a second; or see whether all is answered."""
        if self._retiring:
            self._leave()
        else:
            for listener in self._others:
                await self._take_from(listener)
        return await super().on_tick(counter)

    def _leave(self) -> None:
        for accepting in self.servers:
            accepting.close()
        for listener in self._others:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()  # at once where nothing is being answered, else after that
        if not self.server_state.connections and not self.server_state.tasks:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hold no queue open: nobody would look into it any more."""
        for listener in self._others:
            listener.close()
        await super().shutdown(sockets)

    async def _take_from(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(MOST_TAKEN):
            try:
                connection, _address = listener.accept()
            except OSError:  # nothing waits, mostly; else its own worker will meet it, too
                return
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        state = self.lifespan.state
        return make(config=self.config, server_state=self.server_state, app_state=state)


def build(
    app: ASGIApp,
    settings: ServerSettings,
    times: Times | None = None,
    others: Sequence[socket.socket] = (),
) -> Server:
    """Return the HTTP server for an application; it serves sockets that others bound.

    ``others`` are the listeners of the workers beside this one.
    """
    now = (times or Times()).now
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=cast(type[Connection], partial(Connection, settings=settings, now=now)),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=ceil(settings.drain_seconds),
    )
    return Server(config, others)


def serve(
    app: ASGIApp,
    listeners: list[socket.socket],
    settings: ServerSettings,
    others: Sequence[socket.socket] = (),
) -> None:
    """Serve until SIGTERM or SIGINT; then open streams finish within ``drain_seconds``.

    Blocks. What is still open after the grace time is cut and settled. After SIGUSR1 nothing is
    accepted, and it ends when every answer has. ``others`` as in ``build``.
    """
    http = build(app, settings, others=others)
    signal.signal(signal.SIGUSR1, lambda *_: http.retire())
    http.run(sockets=listeners)
