"""Metrics and the one wide log line per request. No label and no line holds a key or a text.

Both are kept off the request's path: a metric's child is found by one look-up, and the lines of a
tick are one record and one write.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from gateway.endpoints import Endpoint
from gateway.errors import ErrorReply
from gateway.exchange import Attempt, Exchange
from policies.charging import Outcome

log = logging.getLogger("tollway.access")

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
MAX_LINES = 4096
"""Lines that wait for the next tick; more are written at once."""

T = TypeVar("T")
M = TypeVar("M", bound=MetricWrapperBase)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Series(Generic[M]):
    """A metric's children by label values. The library's own look-up takes a lock each time."""

    def __init__(self, metric: M) -> None:
        """No child yet."""
        self._metric = metric
        self._children: dict[tuple[str | int, ...], M] = {}

    def __call__(self, *values: str | int) -> M:
        """Return the child of some label values; the values must be few, and ours."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class Metrics:
    """The metrics of one worker, under the names of ``docs/metrics.md``."""

    def __init__(self) -> None:
        """Register all of them, in a registry of this worker's own."""
        self.registry = CollectorRegistry()
        self.access = AccessLog()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Series(
            Counter(
                "tollway_requests_total", "Requests ended", ["dialect", "model", "status"], **own
            )
        )
        self.attempts = Series(
            Counter(
                "tollway_attempts_total",
                "Tries of an endpoint",
                ["provider", "model", "outcome"],
                **own,
            )
        )
        self.first_token = Series(
            Histogram(
                "tollway_first_token_seconds",
                "From a try's start to its first content",
                ["provider", "model"],
                buckets=_SLOW,
                **own,
            )
        )
        self.request_seconds = Series(
            Histogram("tollway_request_seconds", "Whole requests", ["model"], buckets=_SLOW, **own)
        )
        self.output_rate = Series(
            Histogram(
                "tollway_output_tokens_per_second",
                "Output tokens a second after the first",
                ["provider", "model"],
                buckets=_RATES,
                **own,
            )
        )
        self.overhead = Histogram(
            "tollway_overhead_seconds",
            "From the request to the first try: authentication, plan, ledger",
            buckets=_FAST,
            **own,
        )
        self.tokens = Series(
            Counter("tollway_tokens_total", "Tokens billed", ["provider", "model", "kind"], **own)
        )
        self.charge = Series(
            Counter("tollway_charge_nanodollars_total", "Charged to accounts", ["model"], **own)
        )
        self.cost = Series(
            Counter(
                "tollway_cost_nanodollars_total",
                "Upstream cost",
                ["provider", "model", "won"],
                **own,
            )
        )
        self.rejections = Series(
            Counter(
                "tollway_rejections_total", "Requests refused before any try", ["reason"], **own
            )
        )
        self.breaker_open = Series(
            Gauge(
                "tollway_breaker_open",
                "1 while an endpoint is left alone",
                ["provider", "model"],
                **own,
            )
        )
        self.hedges = Counter("tollway_hedges_total", "Hedged requests", ["outcome"], **own)
        self.ledger_seconds = Series(
            Histogram("tollway_ledger_seconds", "Calls to the ledger", ["op"], buckets=_FAST, **own)
        )
        self.open_holds = Gauge("tollway_ledger_open_holds", "Open holds, all workers", **own)
        self.open_streams = Gauge("tollway_open_streams", "Requests in this worker", **own)
        self.queue_depth = Gauge(
            "tollway_queue_depth", "Requests waiting for a place in this worker", **own
        )
        self.loop_lag = Gauge("tollway_event_loop_lag_seconds", "How late the last tick was", **own)

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
        self.attempts(attempt.provider, model, attempt.outcome).inc()

    def breaker(self, endpoint: Endpoint) -> None:
        """Show whether an endpoint is left alone."""
        gauge = self.breaker_open(endpoint.settings.slug, endpoint.model.id)
        gauge.set(endpoint.breaker.is_open)

    def ended(self, exchange: Exchange, now: float) -> None:
        """Count a request that was planned or refused, and keep its line."""
        view = exchange.candidate.view if exchange.candidate else None
        model = view.model if view else exchange.plan_model
        self.requests("openai", model, exchange.status).inc()
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

    def turned_away(self, reply: ErrorReply, request_id: str) -> None:
        """Count and log an error answer that no exchange stands behind."""
        self.requests("openai", "", reply.status).inc()
        self.access.add({"request_id": request_id, "status": reply.status, "error": reply.kind})

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class AccessLog:
    """The lines of requests that ended, written at the next tick.

    A worker that is killed loses those of its last quarter of a second; money is not in them.
    """

    def __init__(self) -> None:
        """No line waits."""
        self._lines: list[tuple[float, dict[str, Any]]] = []

    def add(self, fields: dict[str, Any]) -> None:
        """Keep a line."""
        self._lines.append((time.time(), fields))
        if len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write all that wait, as one record."""
        lines, self._lines = self._lines, []
        if lines:
            log.info("request", extra={"lines": lines})


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


def log_fault(error: Exception, request_id: str) -> None:
    """Log a fault of our own with its trace."""
    log.error("a handler failed", exc_info=error, extra={"fields": {"request_id": request_id}})


class JSONFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; ``extra={"fields": {...}}`` adds to it.

        ``extra={"lines": [(unix seconds, fields), ...]}`` makes it that many lines.
        """
        given = getattr(record, "lines", None) or ((record.created, getattr(record, "fields", {})),)
        return "\n".join(self._line(record, at, fields) for at, fields in given)

    def _line(self, record: logging.LogRecord, at: float, fields: dict[str, Any]) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: int = logging.INFO) -> None:
    """Send this process's logs to standard error, a JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
