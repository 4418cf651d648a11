"""The ASGI responders: one exchange in, a stream or a whole answer out.

A responder owns the upstream while it sends: it runs the dispatcher in its own task, ends it
when the client disconnects, and chooses between an error answer and an in-band error by
whether the headers are out.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from litestar.types import Receive, Scope, Send

from backends.collect import Collector
from backends.types import CONTENT, DELTAS, AnswerHead, Finish, StreamEvent
from backends.wire.dialect import StreamEncoder
from backends.wire.sse import COMMENT
from gateway.clock import Ticker, Watch
from gateway.dispatch import Client, Dispatcher
from gateway.errors import ErrorReply, Overloaded, internal, reply_for
from gateway.exchange import Exchange
from gateway.ids import REQUEST_ID_HEADER
from gateway.reply import Reply, reply_of, withdraw
from gateway.settings import ServerSettings
from policies.charging import Bill, content_bytes

log = logging.getLogger("tollway")

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Responder(ABC):
    """What both kinds of answer share: the exchange's life around the dispatcher's run."""

    def __init__(
        self,
        exchange: Exchange,
        dispatcher: Dispatcher,
        ticker: Ticker,
        settings: ServerSettings,
    ) -> None:
        """Prepare to answer ``exchange``; nothing runs before the ASGI call."""
        self.exchange = exchange
        self.settings = settings
        self.watch = Watch(ticker, self.on_tick)
        self.reply: Reply
        self._dispatcher = dispatcher
        self._task: asyncio.Task[Any]
        self._now = ticker.now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; returns when the exchange is over and its hold is being closed."""
        del receive, send  # the body has been read, and the answer goes past ASGI's messages
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.reply = reply_of(scope)
        self.reply.on_lost = self._client_left
        self.watch.open()
        if self.reply.lost:
            self._client_left()
        try:
            await self._dispatcher.run(self.exchange, Client(self, self.watch))
        except asyncio.CancelledError:
            if task.uncancel() > 0:
                raise
            if not self.exchange.client_gone:  # the drain is over: this worker must stop
                self.fail(Overloaded("the server is stopping; ask again").reply)
        except Exception as error:  # noqa: BLE001 - the request's boundary: it answers, and logs faults
            self.fail(self._reply_for(error))
        finally:
            self.reply.on_lost = None
            self.over()
            self.watch.close()
            withdraw(scope)

    @abstractmethod
    def begin(self) -> None:
        """See ``gateway.dispatch.Sink``: the responder itself takes the events."""

    @abstractmethod
    async def send(self, events: Sequence[StreamEvent]) -> None:
        """See ``gateway.dispatch.Sink``."""

    @abstractmethod
    async def finish(self, finish: Finish, bill: Bill) -> None:
        """See ``gateway.dispatch.Sink``."""

    def on_tick(self, now: float) -> None:  # noqa: B027 - nothing is due where nobody says so
        """Do what is due; called every tick."""

    def over(self) -> None:  # noqa: B027
        """Note that nothing more may be sent."""

    def held_bytes(self) -> int:
        """Return how much content was taken and is not written yet."""
        return 0

    def fail(self, reply: ErrorReply) -> None:
        """Answer with an error; nothing has been sent."""
        given = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        body = self.exchange.dialect.error(reply.body())
        self.reply.whole(reply.status, [JSON, *given, *self.names()], body)

    def names(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that say which request this was, and what became of it."""
        exchange = self.exchange
        names = [(REQUEST_ID_HEADER, exchange.request.request_id.encode())]
        if exchange.reserved:
            names.append((b"x-generation-id", exchange.id.encode()))
        candidate = exchange.candidate
        if candidate is not None and candidate.dropped:
            names.append((b"x-tollway-dropped", ", ".join(candidate.dropped).encode()))
        return names

    def _client_left(self) -> None:
        self.exchange.client_gone = True
        self.exchange.delivered.take_back(self.reply.unsent_bytes + self.held_bytes())
        self._task.cancel()

    def _reply_for(self, error: Exception) -> ErrorReply:
        reply = reply_for(error)
        if reply is None:
            fields = {
                "request_id": self.exchange.request.request_id,
                "generation_id": self.exchange.id,
            }
            log.error("an exchange failed", exc_info=error, extra={"fields": fields})
            return internal()
        return reply


class StreamReply(Responder):
    """Sends the answer as server-sent events as it comes."""

    def __init__(self, *parts: Any) -> None:
        """See ``Responder``."""
        super().__init__(*parts)
        self._started = False
        self._ended = False
        self._encoder: StreamEncoder | None = None
        self._quiet_since = self._now()
        self._quiet_s = self.settings.first_comment_ms / 1000

    def begin(self) -> None:
        """Nothing was sent yet: a stream commits with its first content."""

    async def send(self, events: Sequence[StreamEvent]) -> None:
        """Encode and send content, one write for what came together."""
        if self.reply.full:  # before the text exists a second time, as bytes
            await self.reply.drain()
        encoder = self._encoder
        opening = b""
        if encoder is None:
            encoder = self._encode(self.exchange.head)
            opening = encoder.open()
        data = b"".join([encoder.delta(event) for event in events if isinstance(event, DELTAS)])
        if opening:
            data = opening + data
        if not self._started:
            self._open()
            data = COMMENT + data
        if data:
            self._quiet_since = self._now()
            self.reply.write(data)

    async def finish(self, finish: Finish, bill: Bill) -> None:
        """Send the closing chunk and the end marker."""
        if not self._started:
            self._open()
        encoder, opening = self._encoder, b""
        if encoder is None:
            encoder = self._encode(self.exchange.head)
            opening = encoder.open()
        if self.reply.full:
            await self.reply.drain()
        self._ended = True
        self.reply.end(opening + encoder.finish(finish, bill.usage, bill.cost))

    def fail(self, reply: ErrorReply) -> None:
        """Answer with an error, or with an error chunk once the headers are out."""
        if self._ended:
            return
        self._ended = True
        if not self._started:
            self._started = True
            super().fail(reply)
            return
        encoder = self._encoder or self._encode(self._head())
        bill = self.exchange.bill
        usage, cost = (None, None) if bill is None else (bill.usage, bill.cost)
        self.reply.end(encoder.error(reply.body(), usage, cost))

    def on_tick(self, now: float) -> None:
        """Keep a quiet connection alive with a comment."""
        if now - self._quiet_since >= self._quiet_s and not self._ended:
            self._quiet_since = now
            self._quiet_s = self.settings.keepalive_ms / 1000
            if not self._started:
                self._open()
            if not self.reply.full:
                self.reply.write(COMMENT)

    def over(self) -> None:
        """A comment that was due says nothing any more."""
        self._ended = True

    def held_bytes(self) -> int:
        """See ``Responder``: some dialects send a call only after the one before it."""
        waiting = self._encoder.waiting() if self._encoder is not None else ()
        return sum(content_bytes(event) for event in waiting if isinstance(event, CONTENT))

    def _open(self) -> None:
        self._started = True
        self._quiet_s = self.settings.keepalive_ms / 1000
        self.reply.open(200, [*EVENT_STREAM, *self.names()])

    def _encode(self, head: AnswerHead) -> StreamEncoder:
        self._encoder = self.exchange.dialect.encoder(head, self.exchange.request)
        return self._encoder

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

    def begin(self) -> None:
        """Forget what an attempt that failed has left."""
        self._collector = Collector()

    async def send(self, events: Sequence[StreamEvent]) -> None:
        """Keep content for later."""
        self._collector.add(events)

    async def finish(self, finish: Finish, bill: Bill) -> None:
        """Send the whole answer."""
        self._collector.add((finish,))
        exchange = self.exchange
        data = exchange.dialect.whole(
            exchange.head, exchange.request, self._collector.answer(), bill.usage, bill.cost
        )
        self.reply.whole(200, [JSON, *self.names()], data)
