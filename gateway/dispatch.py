"""The attempt loop: plan, reserve, open, commit, forward, close.

The only place that retries or falls back. Time and randomness are passed in.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from backends.errors import (
    BackendError,
    ContextLengthExceeded,
    DeadlineExceeded,
    EmptyAnswer,
    StreamTruncated,
)
from backends.types import CONTENT, DELTAS, ChatRequest, Finish, StreamEvent, Usage
from gateway.cashier import Cashier
from gateway.clock import Ticker, TimedOut, Watch
from gateway.counts import PromptCounts
from gateway.endpoints import Endpoint, EndpointTable
from gateway.errors import AllFailed, ErrorReply, NoRoute, UnknownModel, internal, reply_for
from gateway.exchange import Exchange, narrowed
from gateway.settings import ServerSettings
from gateway.telemetry import Metrics
from policies.charging import Bill, Outcome
from policies.planner import plan
from policies.types import Candidate, Policy, RouteContext, RoutePlan, Strategy, chain


class Sink(Protocol):
    """Where an answer goes: a stream to a client, or a whole answer in the making."""

    def begin(self) -> None:
        """Another attempt begins; what an earlier one sent is void."""
        ...

    async def send(self, events: Sequence[StreamEvent]) -> None:
        """Take events, at first with content; returning means the client took them."""
        ...

    async def finish(self, finish: Finish, bill: Bill) -> None:
        """The answer is complete; it may have had no content at all."""
        ...


class Client(NamedTuple):
    """The two ends of a client's connection that an answer needs."""

    sink: Sink
    watch: Watch


@dataclass(frozen=True, slots=True)
class Parts:
    """What a dispatcher is made of; wiring fills it."""

    table: EndpointTable
    counts: PromptCounts
    cashier: Cashier
    ticker: Ticker
    metrics: Metrics
    policies: Mapping[Strategy, tuple[Policy, ...]]
    settings: ServerSettings
    """By model id, where the caller has none of its own."""

    rng: random.Random


CLIENT_LEFT = 499
"""The status that logs and metrics show where the client did not wait for the answer."""

_SILENCE = {
    "connect": "no connection in time",
    "first_token": "no content within the first-token limit",
    "stall": "the answer stalled",
    "total": "the answer took longer than the total limit",
}


class Dispatcher:
    """Carries one exchange after another from hop 2 to hop 10."""

    def __init__(self, parts: Parts) -> None:
        """Keep the parts; the dispatcher itself has no state."""
        self._parts = parts
        self._now = parts.ticker.now

    async def run(self, exchange: Exchange, client: Client) -> None:
        """Answer ``exchange`` into the client's sink; its hold is closed exactly once.

        Raises:
            UnknownModel, NoRoute, LedgerError: refused before any try.
            AllFailed: no candidate answered, or the answer broke after content (then
                ``exchange.bill`` says what is charged).
        """
        await self._admit(exchange)
        outcome = Outcome.FAILED
        try:
            await self._serve(exchange, client)
            outcome = Outcome.FINISHED
        except asyncio.CancelledError:
            exchange.status = _status_of_cut(exchange)
            outcome = _outcome_of_cut(exchange)
            if exchange.client_gone:  # else this worker must stop, and waits for nothing
                await self._parts.counts.of_answer(exchange, outcome)
            raise
        except Exception as error:
            outcome = _outcome_of_break(exchange)
            _note(exchange, error)
            await self._parts.counts.of_answer(exchange, outcome)
            raise
        finally:
            self._close(exchange, outcome)
            self._parts.metrics.ended(exchange, self._now())

    async def _admit(self, exchange: Exchange) -> None:
        """Plan and reserve; a refusal, or a client that left, is counted and logged as any other.

        Raises:
            UnknownModel, NoRoute, LedgerError: refused.
        """
        metrics = self._parts.metrics
        try:
            exchange.plan = self._plan(exchange)
            for candidate in exchange.plan.candidates:
                if candidate.tight:
                    await self._parts.counts.fit_window(exchange)
                    break
            await self._parts.cashier.reserve(exchange)
        except asyncio.CancelledError:
            exchange.status = _status_of_cut(exchange)
            metrics.ended(exchange, self._now())
            raise
        except Exception as error:
            reply = _note(exchange, error)
            metrics.refused(reply)
            metrics.ended(exchange, self._now())
            raise
        metrics.overhead.observe(self._now() - exchange.opened)

    def _plan(self, exchange: Exchange) -> RoutePlan:
        """Plan every asked model in the caller's order.

        Raises:
            UnknownModel: a name is not known.
            NoRoute: nothing is feasible.
        """
        table, request = self._parts.table, exchange.request
        context = RouteContext(
            required=request.required,
            droppable=not request.provider.require_parameters,
            max_tokens=request.max_tokens,
            prompt_bytes=request.prompt_bytes,
            images=request.images,
            copies=request.n,
            generates=request.operation != "embeddings",
            output_default_tokens=self._parts.settings.output_default_tokens,
        )
        plans = []
        for name in request.models:
            model = table.model(name)
            if model is None:
                raise UnknownModel(name, table.names())
            views = table.snapshot(model, exchange.caller.markup_bp)
            plans.append(plan(context, views, self._parts.policies[model.strategy]))
        whole = chain(plans)
        if not whole.candidates:
            raise NoRoute(whole.rejections)
        return whole

    async def _serve(self, exchange: Exchange, client: Client) -> None:
        """Try candidates until one answers.

        Raises:
            AllFailed: none did, or one broke after content, or the request was refused.
        """
        failures: list[tuple[str, BackendError]] = []
        window = 0
        candidates = exchange.plan.candidates
        for candidate in candidates:
            size = candidate.view.context_tokens
            if size is not None and size < window:
                continue
            if self._went_down(candidate) and (failures or candidate is not candidates[-1]):
                continue
            error = await self._try_endpoint(exchange, candidate, client)
            if error is None:
                return
            failures.append((candidate.view.provider, error))
            if exchange.committed_at is not None or not error.move_on:
                break
            if isinstance(error, ContextLengthExceeded):
                window = max(window, size or 0)
        raise AllFailed(failures) from failures[-1][1]

    async def _try_endpoint(
        self, exchange: Exchange, candidate: Candidate, client: Client
    ) -> BackendError | None:
        """Try one endpoint, again where that may help; return its last error or None."""
        endpoint = self._parts.table.endpoint(candidate.view.id)
        exchange.candidate = candidate
        exchange.charge_broken = endpoint.model.charge_broken
        failures = 0
        while True:
            try:
                await self._attempt(exchange, endpoint, client)
                return None
            except BackendError as error:
                failures += 1
                if exchange.committed_at is not None or not self._may_retry(
                    failures, error, endpoint
                ):
                    return error
                await asyncio.sleep(self._wait_s(failures, error))

    async def _attempt(self, exchange: Exchange, endpoint: Endpoint, client: Client) -> None:
        """Ask one endpoint once and forward its answer.

        Raises:
            BackendError: it failed, before or after content.
        """
        attempt = exchange.begin(endpoint.id, endpoint.settings.slug, self._now())
        if endpoint.tokenizer and exchange.request.operation == "chat" and exchange.request.n == 1:
            exchange.delivered.texts = []  # of several answers the pieces come mixed
        client.sink.begin()
        was_open = endpoint.breaker.is_open
        probe = endpoint.breaker.begin(attempt.started)
        endpoint.in_flight += 1
        try:
            finish = await self._forward(exchange, endpoint, client)
            if len(finish.choices) < exchange.request.n:
                raise StreamTruncated(f"the upstream ended {len(finish.choices)} choices only")
            if not exchange.delivered.events and _is_empty(finish, exchange.request):
                raise EmptyAnswer("the upstream answered with nothing")
            attempt.end("ok", self._now())
            endpoint.breaker.succeeded()
        except BackendError as error:
            attempt.end(type(error).__name__, self._now(), error.upstream_status)
            endpoint.failed(error, attempt.ended, probe=probe)
            raise
        except BaseException:
            attempt.end("abandoned", self._now())
            endpoint.breaker.abandoned(probe=probe)
            raise
        finally:
            endpoint.in_flight -= 1
            self._parts.metrics.tried(exchange, attempt)
            if endpoint.breaker.is_open is not was_open:
                self._parts.metrics.breaker(endpoint)
        await self._finish(exchange, finish, client)

    async def _forward(self, exchange: Exchange, endpoint: Endpoint, client: Client) -> Finish:
        """Open the endpoint and pass its content on; return its finish, not yet passed on."""
        watch, sink, now = client.watch, client.sink, self._now
        opened = now()
        deadline, stall_s = opened + endpoint.total_s, endpoint.stall_s
        assert exchange.candidate is not None
        request = narrowed(exchange.request, exchange.candidate)
        whole = request.operation == "embeddings"
        first_s = endpoint.whole_s if whole else endpoint.first_token_s
        early: list[StreamEvent] = []  # before any content; it commits nothing
        try:
            with watch:
                watch.arm("first_token", min(opened + first_s, deadline))
                async with endpoint.backend.stream(request, deadline=deadline) as batches:
                    exchange.accepted = True
                    async for batch in batches:
                        finish = batch[-1] if isinstance(batch[-1], Finish) else None
                        events = batch if finish is None else batch[:-1]
                        if events and (exchange.content_at is not None or _has_content(events)):
                            if exchange.content_at is None:
                                self._first_content(exchange, endpoint, opened)
                                events = [*early, *events]
                            watch.rest()  # a slow client is no stall; its connection bounds it
                            await sink.send(events)
                            late_at = now() + stall_s
                            if late_at < deadline:
                                watch.arm("stall", late_at)
                            else:
                                watch.arm("total", deadline)
                        elif events:
                            early += [event for event in events if isinstance(event, DELTAS)]
                        exchange.delivered.add(events)
                        if finish is not None:
                            return finish
        except TimedOut as late:
            raise DeadlineExceeded(_SILENCE[late.reason], phase=late.reason) from late
        raise StreamTruncated("the upstream's stream ended without a finish")

    def _first_content(self, exchange: Exchange, endpoint: Endpoint, opened: float) -> None:
        """**Commit** a stream: from here on this endpoint answers, or it ends with an error.

        A whole answer has sent nothing yet: it is committed when it is complete.
        """
        exchange.content_at = self._now()
        if exchange.streamed:
            exchange.committed_at = exchange.content_at
        took_s = exchange.content_at - opened
        endpoint.measured(took_s * 1000)
        self._parts.metrics.answered(endpoint, took_s)

    async def _finish(self, exchange: Exchange, finish: Finish, client: Client) -> None:
        """Bill a complete answer, start settling, and tell the client."""
        exchange.finished_at = self._now()
        exchange.report, exchange.ends = finish.usage, finish.choices
        exchange.dropped_events = finish.dropped_events
        if finish.extras:
            exchange.delivered.came_with(finish.extras)
        exchange.committed_at = exchange.committed_at or exchange.finished_at
        exchange.content_at = exchange.content_at or exchange.finished_at
        if exchange.delivered.texts is not None:
            await self._parts.counts.of_answer(exchange, Outcome.FINISHED)
        bill = self._close(exchange, Outcome.FINISHED)
        await client.sink.finish(finish, bill)

    def _close(self, exchange: Exchange, outcome: Outcome) -> Bill:
        """Fix outcome and bill once, and hand the hold to the cashier."""
        if exchange.bill is not None:
            return exchange.bill
        exchange.finished_at = exchange.finished_at or self._now()
        bill = exchange.close(outcome)
        self._parts.cashier.close(exchange)
        return bill

    def _went_down(self, candidate: Candidate) -> bool:
        """Whether its breaker opened, or someone else's probe began, since the plan was made."""
        breaker = self._parts.table.endpoint(candidate.view.id).breaker
        return candidate.view.available and not breaker.available(self._now())

    def _may_retry(self, failures: int, error: BackendError, endpoint: Endpoint) -> bool:
        settings = endpoint.settings
        if error.other_credential:
            return failures <= max(settings.retries, len(settings.secrets) - 1)
        short = (error.retry_after_s or 0) <= self._parts.settings.retry_after_max_s
        left = failures <= settings.retries
        return left and short and error.retry_here and not endpoint.breaker.is_open

    def _wait_s(self, failures: int, error: BackendError) -> float:
        """Full jitter over a doubling bound, and at least what the upstream asked for.

        Another credential has not been asked to wait.
        """
        if error.other_credential:
            return 0.0
        settings = self._parts.settings
        bound_ms = min(settings.retry_cap_ms, settings.retry_base_ms * 2.0**failures)
        return max(error.retry_after_s or 0.0, self._parts.rng.uniform(0, bound_ms / 1000))


def _has_content(events: Sequence[StreamEvent]) -> bool:
    return any(isinstance(event, CONTENT) for event in events)


def _is_empty(finish: Finish, request: ChatRequest) -> bool:
    """A clean stop without content, on a request without ``stop``, is a failure.

    Unless the report says that the model thought, hidden from us: that is output.
    """
    stopped = all(end.reason == "stop" for end in finish.choices)
    thought = finish.usage.reasoning_tokens if isinstance(finish.usage, Usage) else None
    return stopped and not thought and not request.stop


def _status_of_cut(exchange: Exchange) -> int:
    return CLIENT_LEFT if exchange.client_gone else 503


def _outcome_of_cut(exchange: Exchange) -> Outcome:
    """The client left, read too slowly, or this worker had to stop."""
    if not exchange.client_gone:
        return _outcome_of_break(exchange)
    return Outcome.CLIENT_CUT if exchange.accepted else Outcome.FAILED


def _outcome_of_break(exchange: Exchange) -> Outcome:
    charged = exchange.committed_at is not None and exchange.charge_broken
    return Outcome.BROKEN if charged else Outcome.FAILED


def _note(exchange: Exchange, error: Exception) -> ErrorReply:
    """Keep kind and status for log and record: the words may quote the prompt."""
    reply = reply_for(error) or internal()
    exchange.error, exchange.status = reply.kind, reply.status
    return reply
