"""What a running worker is: the parts that its route handlers use."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from litestar.types import ASGIApp

from backends.wire.dialect import Decoded, Dialect
from gateway.auth import Authenticator, Caller
from gateway.background import Background
from gateway.body import Bodies
from gateway.catalogue import Catalogue
from gateway.clock import Ticker, Times
from gateway.counts import PromptCounts
from gateway.dispatch import Dispatcher
from gateway.endpoints import EndpointTable
from gateway.event_stream import StreamReply, WholeReply
from gateway.exchange import Exchange
from gateway.health import Health
from gateway.ids import generation_id
from gateway.overload import Overload
from gateway.settings import Settings
from gateway.telemetry import Metrics
from policies.ledger.client import Ledger


@dataclass(frozen=True, slots=True)
class Worker:
    """Everything wiring built."""

    settings: Settings
    times: Times
    ticker: Ticker
    background: Background
    bodies: Bodies
    ledger: Ledger
    auth: Authenticator
    table: EndpointTable
    dispatcher: Dispatcher
    metrics: Metrics
    health: Health
    overload: Overload
    catalogue: Catalogue
    counts: PromptCounts

    def check_room(self) -> None:
        """Refuse before the key is looked up and the body read when this worker has no room.

        Raises:
            Overloaded: it is full, or its event loop has been late for too long.
        """
        self.overload.check(len(self.ticker))

    def answer(
        self, decoded: Decoded, dialect: Dialect, caller: Caller, request_id: str
    ) -> ASGIApp:
        """Return the responder for one decoded request.

        Raises:
            Overloaded: this worker has filled up while the body came.
        """
        self.check_room()
        created_s = self.times.wall_us() // 1_000_000
        exchange = Exchange(
            id=generation_id(created_s),
            request=msgspec.structs.replace(
                decoded.request, request_id=request_id, account=caller.account
            ),
            dialect=dialect,
            caller=caller,
            streamed=decoded.stream,
            created_s=created_s,
            opened=self.times.now(),
        )
        kind = StreamReply if decoded.stream else WholeReply
        return kind(exchange, self.dispatcher, self.ticker, self.settings.server)
