"""Metrics, and what the one line per request says. No label and no line holds a key or a text."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from gateway.endpoints import Endpoint
from gateway.errors import ErrorReply
from gateway.exchange import Attempt, Exchange
from gateway.log import AccessLog
from gateway.shared_metrics import AllWorkers
from policies.charging import Outcome

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
T = TypeVar("T")
M = TypeVar("M", bound=MetricWrapperBase)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Series(Generic[M]):
    """A metric's children by label values. The library's own look-up takes a lock each time."""

    def __init__(self, metric: M) -> None:
        """No child yet."""
        self.metric = metric
        self._children: dict[tuple[str | int, ...], M] = {}

    def __call__(self, *values: str | int) -> M:
        """Return the child of some label values; the values must be few, and ours."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self.metric.labels(*values)
        return child


class Metrics:
    """The metrics of one worker, under the names of ``docs/metrics.md``."""

    def __init__(self, shared: Path | None = None) -> None:
        """Register all of them, in a registry of this worker's own.

        ``shared`` is the folder of all workers' metrics, which are shown instead of one's own.
        """
        self.access = AccessLog()
        self.registry = self.shown = CollectorRegistry()
        if shared is not None:
            self.shown = CollectorRegistry()
            self.shown.register(AllWorkers(self.registry, shared))
        count, measure = self._counter, self._histogram
        self.requests = count("requests_total", "Requests ended", "dialect", "model", "status")
        self.attempts = count(
            "attempts_total", "Tries of an endpoint", "provider", "model", "outcome"
        )
        self.first_token = measure(
            "first_token_seconds",
            "From a try's start to its first content",
            _SLOW,
            "provider",
            "model",
        )
        self.request_seconds = measure("request_seconds", "Whole requests", _SLOW, "model")
        self.output_rate = measure(
            "output_tokens_per_second",
            "Output tokens a second after the first",
            _RATES,
            "provider",
            "model",
        )
        self.overhead = Histogram(
            "tollway_overhead_seconds",
            "From the request to the first try: authentication, plan, ledger",
            buckets=_FAST,
            registry=self.registry,
        )
        self.tokens = count("tokens_total", "Tokens billed", "provider", "model", "kind")
        self.charge = count("charge_nanodollars_total", "Charged to accounts", "model")
        self.cost = count("cost_nanodollars_total", "Upstream cost", "provider", "model", "won")
        self.rejections = count("rejections_total", "Requests refused before any try", "reason")
        self.hedges = count("hedges_total", "Hedged requests", "outcome")
        self.ledger_seconds = measure("ledger_seconds", "Calls to the ledger", _FAST, "op")
        self._add_gauges()
        self.label: Callable[[str], str] = str
        """What stands for a model's name; the table of endpoints knows which are ours."""

    def _counter(self, name: str, text: str, *labels: str) -> Series[Counter]:
        return Series(Counter(f"tollway_{name}", text, labels, registry=self.registry))

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], *labels: str
    ) -> Series[Histogram]:
        metric = Histogram(f"tollway_{name}", text, labels, buckets=buckets, registry=self.registry)
        return Series(metric)

    def _add_gauges(self) -> None:
        # Each worker sees all holds, so that the last look is the truth. What is open adds up;
        # a breaker or a loop is as bad as the worst worker's. A dead worker has none of these.
        latest: dict[str, Any] = {"registry": self.registry, "multiprocess_mode": "mostrecent"}
        total = latest | {"multiprocess_mode": "livesum"}
        worst = latest | {"multiprocess_mode": "livemax"}
        text, labels = "1 while an endpoint is left alone", ["provider", "model"]
        self.breaker_open = Series(Gauge("tollway_breaker_open", text, labels, **worst))
        self.open_holds = Gauge("tollway_ledger_open_holds", "Open holds, all workers", **latest)
        self.open_streams = Gauge("tollway_open_streams", "Requests being answered", **total)
        self.queue_depth = Gauge("tollway_queue_depth", "Requests waiting for a place", **total)
        self.loop_lag = Gauge(
            "tollway_event_loop_lag_seconds", "How late the last tick was", **worst
        )

    async def ledger(self, op: str, call: Awaitable[T]) -> T:
        """Time one call to the ledger."""
        started = time.perf_counter()
        try:
            return await call
        finally:
            self.ledger_seconds(op).observe(time.perf_counter() - started)

    def tried(self, exchange: Exchange, attempt: Attempt) -> None:
        """Count one try of an endpoint."""
        model = exchange.candidate.view.model if exchange.candidate else ""
        self.attempts(attempt.provider, self.label(model), attempt.outcome).inc()

    def breaker(self, endpoint: Endpoint) -> None:
        """Show whether an endpoint is left alone."""
        gauge = self.breaker_open(endpoint.settings.slug, self.label(endpoint.model.id))
        gauge.set(endpoint.breaker.is_open)

    def answered(self, endpoint: Endpoint, took_s: float) -> None:
        """Keep how long the first content took."""
        label = self.label(endpoint.model.id)
        self.first_token(endpoint.settings.slug, label).observe(took_s)

    def ended(self, exchange: Exchange, now: float) -> None:
        """Count a request that was planned or refused, and keep its line."""
        view = exchange.candidate.view if exchange.candidate else None
        model = self.label(view.model if view else exchange.plan_model)
        self.requests(exchange.dialect.name, model, exchange.status).inc()
        self.request_seconds(model).observe(now - exchange.opened)
        bill = exchange.bill
        if bill is not None and view is not None and exchange.outcome is not Outcome.FAILED:
            for kind, count in exchange.meta.tokens.items():
                self.tokens(view.provider, model, kind).inc(count)
            self.charge(model).inc(bill.cost.charge_nanodollars)
            self.cost(view.provider, model, "true").inc(bill.cost.upstream_nanodollars)
            if exchange.content_at is not None and exchange.finished_at is not None:
                seconds = exchange.finished_at - exchange.content_at
                if seconds > 0 and bill.usage.completion_tokens > 1:
                    rate = (bill.usage.completion_tokens - 1) / seconds
                    self.output_rate(view.provider, model).observe(rate)
        self.access.add(_line(exchange, now))

    def refused(self, reply: ErrorReply) -> None:
        """Count a request that was refused before any try."""
        self.rejections(reply.kind).inc()

    def turned_away(self, reply: ErrorReply, dialect: str, request_id: str) -> None:
        """Count and log an error answer that no exchange stands behind."""
        self.requests(dialect, "", reply.status).inc()
        self.access.add({"request_id": request_id, "status": reply.status, "error": reply.kind})

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.shown)


def _line(exchange: Exchange, now: float) -> dict[str, Any]:
    view = exchange.candidate.view if exchange.candidate else None
    bill = exchange.bill
    return {
        "request_id": exchange.request.request_id,
        "generation_id": exchange.id,
        "account": exchange.caller.account,
        "key": exchange.caller.key_id,
        "model": view.model if view else exchange.plan_model,
        "endpoint": view.id if view else None,
        "status": exchange.status,
        "outcome": str(exchange.outcome),
        "streamed": exchange.streamed,
        "attempts": len(exchange.attempts),
        "first_token_ms": None
        if exchange.content_at is None
        else round((exchange.content_at - exchange.opened) * 1000, 1),
        "total_ms": round((now - exchange.opened) * 1000, 1),
        "tokens": exchange.meta.tokens,
        "charge_nanodollars": bill.cost.charge_nanodollars if bill else 0,
        "error": exchange.error,
    }
