"""An httpx transport for HTTP/1.1 that costs little per read: asyncio's protocol, llhttp's parser.

Why not httpx's own: it spends several times the rest of the gateway on each streamed chunk
(its pool scans every request at every change, and each read passes six generators). Same
seam, same exceptions; ``tests/benchmarks`` shows the difference.

Source: RFC 9112 (message framing, 6.3; connection reuse, 9.3).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Final, cast

import httptools
import httpx

HIGH_WATER_BYTES: Final = 16 * 1024
"""So much of an answer may wait for its reader; then the socket is not read."""

READ_BYTES: Final = 32 * 1024
"""The most that one read takes, and so adds to what waits."""

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_IDLE: Final = 200
IDLE_S: Final = 30.0


class Connection(asyncio.BufferedProtocol):
    """One connection to an upstream: one request at a time, its answer as it arrives."""

    def __init__(self, buffer: memoryview) -> None:
        """Not connected yet; ``buffer`` is what the loop reads into, and may be others' too."""
        self._buffer = buffer
        self.idle_since = 0.0
        self.lent = False
        """Whether somebody asks over it; given back once, however many close it."""

        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = True
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._body: list[bytes] = []
        self.on_body = self._body.append  # the parser calls it for each piece, without us
        self._buffered = 0
        self._head_bytes = 0
        self._head_done = False
        self._until_close = False
        self._keep_alive = False
        self._lost: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)

    # What the caller does.

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last answer has come, and was read.

        What nobody has read would be the beginning of the next answer: someone else's.
        """
        return self.complete and not self._body and self._keep_alive and self._lost is None

    def header(self, name: bytes) -> bytes | None:
        """Return an answer's header by its name in small letters."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request and wait for the answer's head.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: no answer came.
        """
        assert self._transport is not None
        self.complete = self._head_done = self._until_close = self._keep_alive = False
        self.lent = True
        self._body.clear()
        self.status, self.headers, self._head_bytes, self._buffered = 0, [], 0, 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(head + body)
        while not self._head_done:
            if self._lost is not None:
                raise self._lost
            self._waiter = self._loop.create_future()
            await self._waiter

    async def read(self) -> bytes:
        """Return what has arrived of the body, at least a byte; nothing at its end.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: the answer broke off.
        """
        while not self._body:
            if self.complete:
                return b""
            if self._lost is not None:
                raise self._lost
            self._waiter = self._loop.create_future()
            await self._waiter
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if self._buffered > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.resume_reading()
        self._buffered = 0
        return data

    def close(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next read goes."""
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        """Parse what arrived; stop reading when too much of it waits."""
        if self.complete:
            self._fail(httpx.RemoteProtocolError("the upstream sent what nobody asked for"))
            self.close()
            return
        try:
            self._parser.feed_data(self._buffer[:size])
        except httptools.HttpParserUpgrade:
            self._fail(httpx.RemoteProtocolError("the upstream wants another protocol"))
            self.close()
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"the upstream's answer is no HTTP: {error}"))
            self.close()
        if self._body:
            before = self._buffered
            self._buffered += size
            if before <= HIGH_WATER_BYTES < self._buffered and self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The upstream has finished sending."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Say how it ended: the end of an answer that lasts until the close, or a break."""
        if not self.complete:
            if error is None and self._until_close:
                self.complete = True
            else:
                words = str(error) if error else "closed before the answer was complete"
                kind = httpx.ReadError if error else httpx.RemoteProtocolError
                self._fail(kind(words))
        self._lost = self._lost or httpx.ReadError("closed")
        self._wake()

    # What the parser says.

    def on_message_begin(self) -> None:
        """A second answer to one request is nobody's: what follows is not parsed."""
        if self.complete:
            raise httptools.HttpParserError("it sent what nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, within a bound."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("its head is too long")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there, unless it only says that another will come."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []
            return
        names = {name.lower() for name, _ in self.headers}
        self._until_close = not names & {b"content-length", b"transfer-encoding"}
        self._head_done = True

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self.status >= 200:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _fail(self, error: Exception) -> None:
        self._lost = self._lost or error

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Body(httpx.AsyncByteStream):
    """An answer's body; closing it gives the connection back, or ends it."""

    def __init__(self, pool: HTTPTransport, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        while connection is not None and (data := await connection.read()):
            yield data

    async def aclose(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


class HTTPTransport(httpx.AsyncBaseTransport):
    """Connections to one origin, kept for the next request."""

    def __init__(self, *, connect_s: float, uds: str | None = None) -> None:
        """Connect to a Unix socket if one is given, else to each request's host."""
        self._connect_s = connect_s
        self._uds = uds
        self._idle: deque[Connection] = deque()
        self._buffer = memoryview(bytearray(READ_BYTES))  # a read is parsed before the next one

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is at hand; the answer's body streams.

        Raises:
            httpx.TransportError: as httpx's own transport does.
        """
        connection = await self.ask(request.url, _head(request), request.content)
        return self.response(connection, request)

    async def ask(self, url: httpx.URL, head: bytes, body: bytes) -> Connection:
        """Send a request that is bytes already; return where its answer has begun.

        Raises:
            httpx.TransportError: as httpx's own transport does.
        """
        connection = self._reused() or await self._connect(url)
        try:
            await connection.send(head, body)
        except BaseException:
            connection.close()
            raise
        return connection

    def response(self, connection: Connection, request: httpx.Request) -> httpx.Response:
        """Return an answer that has begun as httpx's own; closing it ends the exchange."""
        return httpx.Response(
            connection.status,
            headers=connection.headers,
            stream=_Body(self, connection),
            request=request,
        )

    def release(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end; end any other. Once."""
        if not connection.lent:
            return
        connection.lent = False
        if connection.reusable and len(self._idle) < MAX_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    async def aclose(self) -> None:
        """End idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _reused(self) -> Connection | None:
        """Return the connection used last, and end those that were idle too long."""
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self, url: httpx.URL) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                if self._uds is not None:
                    _, made = await loop.create_unix_connection(self._made, self._uds)
                else:
                    _, made = await loop.create_connection(
                        self._made, url.host, url.port or _PORTS[url.scheme], **self._security(url)
                    )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return made

    def _made(self) -> Connection:
        return Connection(self._buffer)

    def _security(self, url: httpx.URL) -> dict[str, Any]:
        if url.scheme != "https":
            return {}
        return {"ssl": trust(), "server_hostname": url.host}


@cache
def trust() -> ssl.SSLContext:
    """Return what all transports trust: reading it takes 30 ms, and keeping it a megabyte."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


_PORTS: Final = {"http": 80, "https": 443}


def _head(request: httpx.Request) -> bytes:
    """Return request line and headers.

    Raises:
        httpx.LocalProtocolError: a header could end its line early.
    """
    lines = [b"%s %s HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)]
    for name, value in request.headers.raw:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise httpx.LocalProtocolError("a header's value has a line break")
        lines.append(b"%s: %s\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)
