"""A real HTTP upstream that plays a part: one part per request, the last one again and again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

WORDS = tuple(f"word{number} " for number in range(60))


@dataclass(slots=True)
class Call:
    """One request that arrived, and the way to answer it."""

    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gateway has closed the connection."""

    async def start(self, status: int = 200, **headers: str) -> None:
        """Send status and headers; the body is chunked."""
        kind = "text/event-stream" if status == 200 else "application/json"
        lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", "Transfer-Encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode())

    async def event(self, document: Any) -> None:
        """Send one event."""
        data = document if isinstance(document, str) else json.dumps(document)
        await self.chunk(f"data: {data}\n\n".encode())

    async def word(self, text: str) -> None:
        """Send a piece of the answer."""
        await self.event({"choices": [{"index": 0, "delta": {"content": text}}]})

    async def finish(self, reason: str = "stop", usage: Any = None) -> None:
        """Send the finish reason, the usage if there is one, and the end marker."""
        await self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if usage is not None:
            await self.event({"choices": [], "usage": usage})
        await self.event("[DONE]")

    async def chunk(self, data: bytes) -> None:
        """Send one chunk of the body."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the body in order."""
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()


Part: TypeAlias = Callable[[Call], Awaitable[None]]


def answer(
    words: Sequence[str] = WORDS, *, usage: Any = "exact", reason: str = "stop", prompt: int = 7
) -> Part:
    """Answer in full; ``usage`` is the object to report, or ``exact``, or None."""
    report = {"prompt_tokens": prompt, "completion_tokens": len(words)}

    async def part(call: Call) -> None:
        await call.start()
        for word in words:
            await call.word(word)
        await call.finish(reason, report if usage == "exact" else usage)
        await call.end()

    return part


def refusal(status: int, code: str | None = None, message: str = "said no", **headers: str) -> Part:
    """Answer with an error."""

    async def part(call: Call) -> None:
        await call.start(status, **headers)
        error = {"message": message, "type": "t", "param": None, "code": code}
        await call.chunk(json.dumps({"error": error}).encode())
        await call.end()

    return part


def silence(*words: str, headers: bool = True) -> Part:
    """Say a few words, then nothing, until the gateway leaves."""

    async def part(call: Call) -> None:
        if headers:
            await call.start()
        for word in words:
            await call.word(word)
        await call.gone.wait()

    return part


def cut(*words: str, in_order: bool = False) -> Part:
    """Say a few words, then close: in the middle of the body, or after its proper end."""

    async def part(call: Call) -> None:
        await call.start()
        for word in words:
            await call.word(word)
        if in_order:
            await call.end()

    return part


async def reset(call: Call) -> None:
    """Break the connection before the first byte of an answer."""
    call.writer.transport.abort()


ASSISTANT_USAGE = {"prompt_tokens": 11, "completion_tokens": 5}


async def assistant(call: Call) -> None:
    """Call the tool when there is one and it was not called yet; else greet."""
    await call.start()
    if call.body.get("tools") and call.body["messages"][-1]["role"] != "tool":
        function = {"name": "get_weather", "arguments": ""}
        pieces: list[Any] = [{"index": 0, "id": "call_a", "type": "function", "function": function}]
        pieces += [{"index": 0, "function": {"arguments": t}} for t in ('{"city":', '"Köln"}')]
        for piece in pieces:
            await call.event({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
        await call.finish("tool_calls", ASSISTANT_USAGE)
    else:
        for word in ("Hello ", "wörld"):
            await call.word(word)
        await call.finish("stop", ASSISTANT_USAGE)
    await call.end()


class Upstream:
    """A server on a port of its own; what it was asked lies in ``calls``."""

    def __init__(self, *parts: Part) -> None:
        """Play ``parts``, the last one from then on."""
        self.parts = list(parts)
        self.calls: list[Call] = []
        self.port = 0
        self.finished = 0

    def endpoint(self, provider: str, **more: Any) -> dict[str, Any]:
        """Return the configuration of an endpoint that is served here."""
        return openai_endpoint(self.port, provider, **more)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request and play its part."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {line.split(": ")[0].lower(): line.split(": ", 1)[1] for line in head}
            body = await reader.readexactly(int(headers["content-length"]))
            call = Call(headers, json.loads(body), writer)
            self.calls.append(call)
            part = self.parts[min(len(self.calls), len(self.parts)) - 1]
            watching = asyncio.create_task(self._watch(reader, call))
            try:
                await part(call)
            finally:
                watching.cancel()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()
        self.finished += 1

    @staticmethod
    async def _watch(reader: asyncio.StreamReader, call: Call) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        call.gone.set()


def openai_endpoint(port: int, provider: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of an OpenAI-like endpoint on this machine."""
    document: dict[str, Any] = {
        "backend": "openai",
        "provider": provider,
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": f"{provider}-model",
        "price": {"prompt": "1", "completion": "2"},
    }
    return document | more


def dead_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def upstream(*parts: Part) -> AsyncIterator[Upstream]:
    """Run an upstream while the block runs."""
    actor = Upstream(*parts)
    tasks: set[asyncio.Task[Any]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(actor.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    actor.port = server.sockets[0].getsockname()[1]
    try:
        yield actor
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
