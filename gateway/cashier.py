"""Between a request and the ledger: holds its worst case, reports its progress, closes it.

Closing never waits in the request's way: it is a task of its own, repeated while Redis is
away (each operation is idempotent by the request's id), and awaited when a worker drains.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.background import Background
from gateway.counts import PromptCounts
from gateway.exchange import Exchange
from gateway.record import generation_record
from gateway.settings import LedgerSettings
from gateway.telemetry import Metrics
from policies.charging import BYTES_PER_TOKEN, Outcome
from policies.ledger.base import (
    HoldRequest,
    HoldState,
    LedgerUnavailable,
    Limit,
    LimitKind,
    PaymentRequired,
    Settlement,
    SettleRequest,
)
from policies.ledger.client import Ledger
from policies.types import Rejection

log = logging.getLogger("tollway")

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 2.0


class Cashier:
    """Reserves, reports and closes the exchanges of one worker."""

    def __init__(
        self,
        ledger: Ledger,
        settings: LedgerSettings,
        background: Background,
        metrics: Metrics,
        counts: PromptCounts,
        now: Callable[[], float],
    ) -> None:
        """Keep the ledger; nothing is open yet."""
        self._ledger = ledger
        self._settings = settings
        self._background = background
        self._metrics = metrics
        self._counts = counts
        self._now = now
        self._open: dict[str, Exchange] = {}

    async def reserve(self, exchange: Exchange) -> None:
        """Hold the worst case of the plan and take a place under every limit, at once.

        Where the credit does not cover that, prompts are counted instead of bounded by their
        bytes, if that can help; what is still too dear is dropped; the rest is tried once more.

        Raises:
            PaymentRequired: not even the cheapest candidate is covered.
            LimitExceeded: a limit of the key or its account refuses.
            LedgerUnavailable: Redis is away.
        """
        try:
            try:
                await self._hold(exchange)
            except PaymentRequired as error:
                if not await self._made_fit(exchange, error.available_nanodollars):
                    raise
                await self._hold(exchange)
        except (asyncio.CancelledError, LedgerUnavailable):
            # It may have been held all the same: give it back without waiting for the sweep.
            self._background.spawn(self._void_unknown(exchange), name="void")
            raise
        exchange.reserved = True
        self._open[exchange.id] = exchange

    async def report(self) -> None:
        """Renew every open hold and store how far its answer has come."""
        points = [point for e in tuple(self._open.values()) if (point := e.checkpoint())]
        if points:
            gone = await self._metrics.ledger("progress", self._ledger.progress(points))
            for name in gone:
                if self._open.pop(name, None) is not None:
                    log.error("the hold of %s expired in mid-answer and was captured", name)

    def close(self, exchange: Exchange) -> None:
        """Settle or void the hold, soon and surely; ``exchange`` has its bill."""
        self._open.pop(exchange.id, None)
        self._background.spawn(self._close(exchange), name=f"close {exchange.id}")

    async def _hold(self, exchange: Exchange) -> None:
        plan, caller, request = exchange.plan, exchange.caller, exchange.request
        exchange.hold_nanodollars = plan.hold_nanodollars
        hold = HoldRequest(
            hold_id=exchange.id,
            account=caller.account,
            key=caller.key_id,
            amount_nanodollars=exchange.hold_nanodollars,
            estimated_tokens=request.prompt_bytes // BYTES_PER_TOKEN,
            key_limit_nanodollars=caller.key_limit_nanodollars,
            limits=(*caller.limits, *self._free_limit(exchange)),
        )
        await self._metrics.ledger("reserve", self._ledger.reserve(hold))

    async def _made_fit(self, exchange: Exchange, available: int) -> bool:
        """Make the plan cheaper until the credit covers it; False where that fails."""
        counted = await self._counts.fit_credit(exchange, available)
        if exchange.plan.hold_nanodollars <= available:
            return counted
        return _drop_dear(exchange, available)

    def _free_limit(self, exchange: Exchange) -> tuple[Limit, ...]:
        rpm = self._settings.free_rpm
        if rpm is None or not any(c.view.tariff.price.is_free for c in exchange.plan.candidates):
            return ()
        return (Limit("t:a:free", LimitKind.REQUESTS, "account.free_rpm", rpm),)

    async def _close(self, exchange: Exchange) -> None:
        assert exchange.bill is not None
        record = generation_record(exchange)
        if exchange.outcome is Outcome.FAILED:
            await self._surely(
                "void",
                exchange,
                lambda: self._ledger.void(exchange.id, exchange.caller.account, record),
            )
            return
        bill = exchange.bill
        request = SettleRequest(
            hold_id=exchange.id,
            account=exchange.caller.account,
            charge_nanodollars=bill.cost.charge_nanodollars,
            cost_picodollars=bill.cost_picodollars,
            actual_tokens=bill.usage.prompt_tokens + bill.usage.completion_tokens,
            meta=exchange.meta,
            record=record,
        )
        await self._surely("settle", exchange, lambda: self._ledger.settle(request))

    async def _surely(
        self, what: str, exchange: Exchange, call: Callable[[], Awaitable[Settlement]]
    ) -> None:
        """Repeat an idempotent call until it is answered or the hold must have expired."""
        give_up = self._now() + self._settings.hold_ttl_s
        wait_s = RETRY_FIRST_S
        while True:
            try:
                _check(what, exchange, (await self._metrics.ledger(what, call())).state)
                return
            except LedgerUnavailable as error:
                if self._now() >= give_up:
                    log.error(
                        "%s of %s gave up: %s; the sweep captures it", what, exchange.id, error
                    )
                    return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_MOST_S)

    async def _void_unknown(self, exchange: Exchange) -> None:
        try:
            await self._ledger.void(exchange.id, exchange.caller.account)
        except LedgerUnavailable:
            log.warning("%s may hold credit until it is swept: Redis is away", exchange.id)


def _check(what: str, exchange: Exchange, state: HoldState) -> None:
    if state in (HoldState.CAPTURED, HoldState.UNKNOWN):
        log.error("%s of %s came too late: the hold is %s", what, exchange.id, state)


def _drop_dear(exchange: Exchange, available: int) -> bool:
    """Leave out candidates that the credit does not cover; False if none or all would go."""
    plan = exchange.plan
    kept = tuple(c for c in plan.candidates if c.hold_nanodollars <= available)
    if not kept or len(kept) == len(plan.candidates):
        return False
    exchange.plan = plan.keeping(
        kept, lambda c: Rejection(c.view.id, "credit", "its worst case is above the credit left")
    )
    return True
