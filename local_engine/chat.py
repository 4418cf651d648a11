"""Answers one chat request over ASGI, whole or streamed.

The request has a place in the engine only while this runs: a client that leaves ends it, at
whatever point.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_engine import wire
from local_engine.errors import RequestRefused
from local_engine.params import ChatParams
from local_engine.service import Answer, Caller, Service
from local_engine.types import Failure

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

_logger = logging.getLogger(__name__)
_JSON = b"application/json"
_SSE = b"text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """An ASGI callable that runs one checked chat request to its end.

    Attributes:
        service: Where it runs.
        chat: What was asked.
        caller: Who asked.
        http_id: The caller's name for the request, sent back in `X-Request-Id`.
    """

    service: Service
    chat: ChatParams
    caller: Caller
    http_id: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop as soon as the client is gone; the place is given back either way."""
        answering = asyncio.create_task(self._answer(_Sender(send, self.http_id)))
        leaving = asyncio.create_task(_wait_until_gone(receive))
        both = (answering, leaving)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if not answering.cancelled() and (error := answering.exception()) is not None:
            raise error

    async def _answer(self, sender: _Sender) -> None:
        try:
            async with self.service.open(self.chat, self.caller) as answer:
                reply = wire.Reply(
                    reply_id=f"chatcmpl-{answer.request.request_id}",
                    model=self.chat.model,
                    created_s=int(time.time()),
                    prompt_tokens=len(answer.request.prompt_tokens),
                )
                if self.chat.stream:
                    await self._stream(answer, reply, sender)
                else:
                    await _send_whole(answer, reply, sender)
        except RequestRefused as refused:
            await sender.fail(refused)
        except Exception:
            _logger.exception("answering failed")
            await sender.fail(
                RequestRefused("the engine failed", code="internal_error", status=500)
            )

    async def _stream(self, answer: Answer, reply: wire.Reply, sender: _Sender) -> None:
        """Send chunks as text comes; one chunk for all that came while the client was slow.

        The status is held back until the request is taken up, so that one that fails in the queue
        has its own.
        """
        writer = wire.ChunkWriter(reply, self.chat.include_usage, self.chat.continuous_usage)
        while True:
            output = await answer.next()
            if isinstance(output.end, Failure) and not sender.started:
                raise RequestRefused.from_failure(output.end)
            data = b""
            if not sender.started:
                data += writer.start()
            if output.text:
                data += writer.text(output.text, output.completion_tokens)
            if isinstance(output.end, Failure):
                data += wire.error_event(RequestRefused.from_failure(output.end))
            elif output.end is not None:
                data += writer.end(output.end.reason, output.completion_tokens)
            if data:
                await sender.stream(data, last=output.end is not None)
            if output.end is not None:
                return


async def _send_whole(answer: Answer, reply: wire.Reply, sender: _Sender) -> None:
    text: list[str] = []
    while True:
        output = await answer.next()
        text.append(output.text)
        if isinstance(output.end, Failure):
            raise RequestRefused.from_failure(output.end)
        if output.end is not None:
            body = reply.whole("".join(text), output.end.reason, output.completion_tokens)
            await sender.whole(200, body)
            return


async def _wait_until_gone(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


class _Sender:
    """Sends one response, and knows how to fail at every point of it."""

    def __init__(self, send: Send, http_id: str) -> None:
        self._send = send
        self._id_header = (b"x-request-id", http_id.encode("latin-1"))
        self.started = False

    async def whole(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", _JSON), length, *headers])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def stream(self, data: bytes, *, last: bool) -> None:
        if not self.started:
            await self._start(200, [(b"content-type", _SSE), (b"cache-control", b"no-cache")])
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def fail(self, refused: RequestRefused) -> None:
        if self.started:
            await self.stream(wire.error_event(refused), last=True)
        else:
            await self.whole(refused.status, wire.error_body(refused), wire.error_headers(refused))

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, self._id_header],
            }
        )
