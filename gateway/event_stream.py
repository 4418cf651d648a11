"""The ASGI responders: one exchange in, a stream or a whole answer out.

A responder owns the upstream while it sends: it runs the dispatcher in its own task, ends it
when the client disconnects, and chooses between an error answer and an in-band error by
whether the headers are out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from litestar.types import Message, Receive, Scope, Send

from backends.collect import Collector
from backends.types import CONTENT, AnswerHead, Finish, StreamEvent
from backends.wire.openai_reply import COMMENT, ChunkEncoder, encode_answer, usage_body
from gateway.background import Background
from gateway.clock import Ticker, Watch
from gateway.dispatch import Client, Dispatcher, Sink
from gateway.errors import ErrorReply, Overloaded, internal, reply_for
from gateway.exchange import Exchange
from gateway.settings import ServerSettings
from policies.charging import Bill

log = logging.getLogger("tollway")

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")


class Responder:
    """What both kinds of answer share: the exchange's life around the dispatcher's run."""

    def __init__(
        self,
        exchange: Exchange,
        dispatcher: Dispatcher,
        ticker: Ticker,
        background: Background,
        settings: ServerSettings,
    ) -> None:
        """Prepare to answer ``exchange``; nothing runs before the ASGI call."""
        self.exchange = exchange
        self.settings = settings
        self.background = background
        self.watch = Watch(ticker, self.on_tick)
        self._dispatcher = dispatcher
        self._send: Send
        self._now = ticker.now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; returns when the exchange is over and its hold is being closed."""
        del scope
        self._send = send
        task = asyncio.current_task()
        assert task is not None
        leave = self.background.spawn(self._await_disconnect(receive, task), name="disconnect")
        self.watch.open()
        try:
            await self._answer()
        except asyncio.CancelledError:
            if task.uncancel() > 0:
                raise
            if not self.exchange.client_gone:  # the drain is over: this worker must stop
                await self.fail(Overloaded("the server is stopping; ask again").reply)
        finally:
            self.over()
            self.watch.close()
            leave()

    async def _answer(self) -> None:
        try:
            await self._dispatcher.run(self.exchange, Client(self.sink(), self.watch))
        except Exception as error:  # noqa: BLE001 - the request's boundary: it answers, and logs faults
            await self.fail(self._reply(error))

    def sink(self) -> Sink:
        """Return where the dispatcher sends the answer."""
        raise NotImplementedError

    def on_tick(self, now: float) -> None:
        """Do what is due; called every tick."""

    def over(self) -> None:
        """Note that nothing more may be sent."""

    async def fail(self, reply: ErrorReply) -> None:
        """Answer with an error; nothing has been sent."""
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        await self.open(reply.status, [JSON, *headers])
        await self.body(reply.encode(), more=False)

    async def open(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        extra = []
        if self.exchange.reserved:
            extra.append((b"x-generation-id", self.exchange.id.encode()))
        candidate = self.exchange.candidate
        if candidate is not None and candidate.dropped:
            extra.append((b"x-tollway-dropped", ", ".join(candidate.dropped).encode()))
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, *extra],
        }
        await self._send(start)

    async def body(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the body; returns when the socket took it."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _await_disconnect(self, receive: Receive, task: asyncio.Task[Any]) -> None:
        # The request's body has been read, so the next message is the disconnect.
        while (await receive())["type"] != "http.disconnect":
            pass
        self.exchange.client_gone = True
        task.cancel()

    def _reply(self, error: Exception) -> ErrorReply:
        reply = reply_for(error)
        if reply is None:
            log.error("an exchange failed", exc_info=error, extra={"fields": self._ids()})
            return internal()
        return reply

    def _ids(self) -> dict[str, str]:
        return {
            "request_id": self.exchange.request.request_id,
            "generation_id": self.exchange.id,
        }


class StreamReply(Responder):
    """Sends the answer as server-sent events as it comes."""

    def __init__(self, *parts: Any) -> None:
        """See ``Responder``."""
        super().__init__(*parts)
        self._started = False
        self._ended = False
        self._encoder: ChunkEncoder | None = None
        self._quiet_since = self._now()
        self._quiet_s = self.settings.first_comment_ms / 1000

    def sink(self) -> Sink:
        """The responder itself takes the events."""
        return self

    def begin(self) -> None:
        """Nothing was sent yet: a stream commits with its first content."""

    async def send(self, head: AnswerHead, events: Sequence[StreamEvent]) -> None:
        """Encode and send content, one write for what came together."""
        data = self._encode(head, events)
        if not self._started:
            await self._open()
            data = COMMENT + data
        if data:
            self._quiet_since = self._now()
            await self.body(data, more=True)

    async def finish(self, head: AnswerHead, finish: Finish, bill: Bill) -> None:
        """Send the closing chunk and the end marker."""
        if not self._started:
            await self._open()
        encoder = self._encoder or ChunkEncoder(head)
        self._ended = True
        usage = usage_body(bill.usage, bill.cost)
        await self.body(encoder.finish(finish.choices, usage), more=False)

    async def fail(self, reply: ErrorReply) -> None:
        """Answer with an error, or with an error chunk once the headers are out."""
        if self._ended:
            return
        self._ended = True
        if not self._started:
            self._started = True
            await super().fail(reply)
            return
        exchange = self.exchange
        encoder = self._encoder or ChunkEncoder(self._head())
        bill = exchange.bill
        usage = usage_body(bill.usage, bill.cost) if bill is not None else None
        await self.body(encoder.error(reply.body(), usage), more=False)

    def on_tick(self, now: float) -> None:
        """Keep a quiet connection alive with a comment."""
        if now - self._quiet_since >= self._quiet_s and not self._ended:
            self._quiet_since = now
            self._quiet_s = self.settings.keepalive_ms / 1000
            self.background.spawn(self._comment(), name="comment")

    def over(self) -> None:
        """A comment that was due says nothing any more."""
        self._ended = True

    async def _comment(self) -> None:
        if self._ended:
            return
        if not self._started:
            await self._open()
        if not self._ended:
            await self.body(COMMENT, more=True)

    async def _open(self) -> None:
        self._started = True
        self._quiet_s = self.settings.keepalive_ms / 1000
        headers = [EVENT_STREAM, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self.open(200, headers)

    def _encode(self, head: AnswerHead, events: Sequence[StreamEvent]) -> bytes:
        if self._encoder is None:
            self._encoder = ChunkEncoder(head)
        encoder = self._encoder
        return b"".join(encoder.delta(event) for event in events if isinstance(event, CONTENT))

    def _head(self) -> AnswerHead:
        exchange = self.exchange
        if exchange.candidate is not None:
            return exchange.head
        return AnswerHead(exchange.id, exchange.plan_model, "tollway", exchange.created_s)


class WholeReply(Responder):
    """Collects the answer and sends it at once: the same path, collected."""

    def __init__(self, *parts: Any) -> None:
        """See ``Responder``."""
        super().__init__(*parts)
        self._collector = Collector()

    def sink(self) -> Sink:
        """The responder itself takes the events."""
        return self

    def begin(self) -> None:
        """Forget what an attempt that failed has left."""
        self._collector = Collector()

    async def send(self, head: AnswerHead, events: Sequence[StreamEvent]) -> None:
        """Keep content for later."""
        del head
        self._collector.add(events)

    async def finish(self, head: AnswerHead, finish: Finish, bill: Bill) -> None:
        """Send the whole answer."""
        self._collector.add((finish,))
        usage: Mapping[str, Any] = usage_body(bill.usage, bill.cost)
        data = encode_answer(head, self._collector.answer(), usage)
        await self.open(200, [JSON, (b"content-length", str(len(data)).encode())])
        await self.body(data, more=False)
