"""A scripted HTTP upstream on a real socket, for tests of adapters and of faults.

Each request is answered by a script: an async function that gets the `Exchange` and writes what
it likes, when it likes. Scripts wait for events, never for time::

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(data(delta("Hello")))
        await read_by_the_test.wait()
        exchange.reset()

    async with serving(script) as upstream:
        ...  # ask upstream.base_url

`serving` takes one script per request, in order; the last one answers all further requests. What
was asked stands in `upstream.requests`. A script that raises fails the test when the context ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Request:
    """One request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Gone(Exception):
    """The client closed the connection: the script ends here, which is no fault of it."""


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, request: Request, connection: _Connection) -> None:
        """Belong to one request."""
        self.request = request
        self.gone = connection.gone
        """Set once the client has closed the connection, or we have."""
        self._connection = connection

    async def head(
        self, status: int = 200, headers: Mapping[str, str] | None = None, *, chunked: bool = True
    ) -> None:
        """Send the status line and headers; a chunked body follows unless said otherwise."""
        given = {"Content-Type": "text/event-stream", **(headers or {})}
        if chunked:
            given["Transfer-Encoding"] = "chunked"
        lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
        lines += [f"{name}: {value}" for name, value in given.items()]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        """Send pieces of a chunked body, each as a chunk of its own."""
        for piece in pieces:
            await self.raw(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def end(self) -> None:
        """End a chunked body cleanly; the connection stays open."""
        await self.raw(b"0\r\n\r\n")

    async def reply(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer that states its length."""
        given = {"Content-Type": "application/json", **(headers or {})}
        given["Content-Length"] = str(len(body))
        await self.head(status, given, chunked=False)
        await self.raw(body)

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are, waiting while the client does not read."""
        await self._connection.writable.wait()
        if self.gone.is_set():
            raise Gone
        self._connection.transport.write(data)

    def cut(self) -> None:
        """Close the connection in good order, whatever has been promised."""
        self._connection.transport.close()

    def reset(self) -> None:
        """Reset the connection (over a Unix socket, which knows no reset: close it)."""
        sock = self._connection.transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()

    async def hang(self) -> None:
        """Say nothing more until the client leaves."""
        await self.gone.wait()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class Upstream:
    """What a test may ask of a running server."""

    scripts: list[Script]
    socket_path: str = ""
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    """How many were ever accepted."""

    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _open: set[_Connection] = field(default_factory=set)
    _faults: list[BaseException] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        """Where clients of the OpenAI wire are pointed to."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def exchange(self, number: int = 0) -> Exchange:
        """Wait for a request, counted from 0, and return its exchange."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.exchanges) > number)
        return self.exchanges[number]

    async def _serve(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        self.exchanges.append(exchange)
        script = self.scripts[min(len(self.exchanges), len(self.scripts)) - 1]
        async with self._arrived:
            self._arrived.notify_all()
        try:
            await script(exchange)
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - kept, and raised in the test at the end
            self._faults.append(error)
            exchange.cut()


class _Connection(asyncio.Protocol):
    """Reads one request after another and hands each to its script."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        """Wait for the first request."""
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self._upstream = upstream
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._upstream.connections += 1
        self._upstream._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.writable.set()
        self._upstream._open.discard(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = first.split(" ")
        exchange = Exchange(Request(method, path, headers, rest[:length]), self)
        task = asyncio.get_running_loop().create_task(self._upstream._serve(exchange))
        self._upstream._tasks.add(task)
        task.add_done_callback(self._upstream._tasks.discard)


@asynccontextmanager
async def serving(*scripts: Script, socket_path: str = "") -> AsyncIterator[Upstream]:
    """Serve the scripts on 127.0.0.1, or on a Unix socket; stop at the end."""
    upstream = Upstream(list(scripts), socket_path)
    loop = asyncio.get_running_loop()
    if socket_path:
        server = await loop.create_unix_server(lambda: _Connection(upstream), socket_path)
    else:
        server = await loop.create_server(lambda: _Connection(upstream), "127.0.0.1", 0)
        upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        lost = [connection.gone.wait() for connection in upstream._open]
        for connection in tuple(upstream._open):
            connection.transport.abort()
        await asyncio.gather(*lost)
        for task in tuple(upstream._tasks):
            task.cancel()
        await asyncio.gather(*upstream._tasks, return_exceptions=True)
    if upstream._faults:
        raise ExceptionGroup("scripts failed", upstream._faults)


def unused_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def data(document: Any) -> bytes:
    """Return one event that holds a JSON document."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a chunk of the OpenAI chat wire."""
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": "up-model"}
    return {**head, "choices": list(choices), **more}


def choice(index: int = 0, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return one choice of a chunk."""
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def delta(text: str, index: int = 0, **more: Any) -> dict[str, Any]:
    """Return a chunk with a piece of text."""
    return chunk(choice(index, content=text), **more)


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """Return a usage object."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**counts, "total_tokens": prompt + completion, **more}


def answer(*texts: str, reason: str = "stop", n: int = 1, counted: bool = True) -> list[bytes]:
    """Return the events of a whole answer: the same texts in each of `n` choices."""
    events = [data(delta(text, index)) for text in texts for index in range(n)]
    events.append(data(chunk(*(choice(index, reason) for index in range(n)))))
    if counted:
        events.append(data(chunk(usage=usage(7, len(texts) * n))))
    return [*events, DONE]


def streams(*events: bytes) -> Script:
    """Return a script that sends events, one by one, and ends cleanly."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.send(*events)
        await exchange.end()

    return script


def replies(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Script:
    """Return a script that sends a whole answer; a body that is not bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, content, headers)

    return script


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
