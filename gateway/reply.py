"""How an answer that is bytes already reaches its client: an ASGI extension of our own server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_EXTENSION: Final = "tollway.reply"


class Reply:
    """The way to a client for an answer that is bytes already, past ASGI's messages.

    A message per piece, through the application's layers and uvicorn's checks, costs more than
    the piece. Whoever answers through ASGI must not use it, and the other way round.
    """

    __slots__ = ("_chunked", "_cycle", "_head", "_transport", "on_lost")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        """``on_lost`` is called when the client has gone before the answer's end."""
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""
        self._chunked = cycle.scope["http_version"] != "1.0"  # which ends a body by closing
        self.on_lost: Callable[[], None] | None = None

    @property
    def lost(self) -> bool:
        """Whether the client has gone."""
        return self._cycle.disconnected

    @property
    def full(self) -> bool:
        """Whether more waits for the client than should: ``drain`` first."""
        return self._cycle.flow.write_paused

    @property
    def unsent_bytes(self) -> int:
        """What the client's socket has not taken of what was written."""
        gone = self._transport.is_closing()
        return 0 if gone else self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until the client has taken some of what waits, or has gone."""
        await self._cycle.flow.drain()

    def open(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin a body of pieces; status and headers go out with the first of them."""
        framing = [(b"transfer-encoding", b"chunked")] if self._chunked else []
        self._head = self._start(status, [*headers, *framing])

    def write(self, data: bytes) -> None:
        """Send a piece, at least a byte."""
        if self._cycle.disconnected:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def end(self, data: bytes) -> None:
        """Send the last piece, at least a byte."""
        if self._cycle.disconnected:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        head, self._head = self._head, b""
        self._transport.write(head + data)
        self._finish()

    def whole(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send an answer that is complete."""
        length = (b"content-length", b"%d" % len(body))
        head = self._start(status, [*headers, length])
        if not self._cycle.disconnected:
            self._transport.write(head + body)
            self._finish()

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        headers += cycle.default_headers
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        assert head.count(b"\n") == len(headers), "a header has a line break"
        return b"%b%b\r\n" % (STATUS_LINE[status], head)

    def _finish(self) -> None:
        """Do as uvicorn's own ``send`` does after the last piece."""
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()


def offer(scope: Any, reply: Reply) -> None:
    """Put the extension into a request's ASGI scope."""
    scope["extensions"] = {_EXTENSION: reply}


def withdraw(scope: Any) -> None:
    """Take it out again: scope and extension refer to each other."""
    scope.pop("extensions", None)


def reply_of(scope: Any) -> Reply:
    """Return the extension of a request's ASGI scope."""
    reply = scope["extensions"][_EXTENSION]
    assert isinstance(reply, Reply)
    return reply
