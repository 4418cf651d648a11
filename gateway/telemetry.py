"""Metrics and the one wide log line per request. No label and no line holds a key or a text."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.endpoints import Endpoint
from gateway.errors import ErrorReply
from gateway.exchange import Attempt, Exchange, tokens_by_kind
from gateway.shared_metrics import AllWorkers
from policies.charging import Outcome

log = logging.getLogger("tollway.access")

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one worker, under the names of ``docs/metrics.md``."""

    def __init__(self, shared: Path | None = None) -> None:
        """Register all of them, in a registry of this worker's own.

        ``shared`` is the folder of all workers' metrics, which are shown instead of one's own.
        """
        self.registry = self.shown = CollectorRegistry()
        if shared is not None:
            self.shown = CollectorRegistry()
            self.shown.register(AllWorkers(self.registry, shared))
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "tollway_requests_total", "Requests ended", ["dialect", "model", "status"], **own
        )
        self.attempts = Counter(
            "tollway_attempts_total",
            "Tries of an endpoint",
            ["provider", "model", "outcome"],
            **own,
        )
        self.first_token = Histogram(
            "tollway_first_token_seconds",
            "From a try's start to its first content",
            ["provider", "model"],
            buckets=_SLOW,
            **own,
        )
        self.request_seconds = Histogram(
            "tollway_request_seconds", "Whole requests", ["model"], buckets=_SLOW, **own
        )
        self.output_rate = Histogram(
            "tollway_output_tokens_per_second",
            "Output tokens a second after the first",
            ["provider", "model"],
            buckets=_RATES,
            **own,
        )
        self.overhead = Histogram(
            "tollway_overhead_seconds",
            "From the request to the first try: authentication, plan, ledger",
            buckets=_FAST,
            **own,
        )
        self.tokens = Counter(
            "tollway_tokens_total", "Tokens billed", ["provider", "model", "kind"], **own
        )
        self.charge = Counter(
            "tollway_charge_nanodollars_total", "Charged to accounts", ["model"], **own
        )
        self.cost = Counter(
            "tollway_cost_nanodollars_total",
            "Upstream cost",
            ["provider", "model", "won"],
            **own,
        )
        self.rejections = Counter(
            "tollway_rejections_total", "Requests refused before any try", ["reason"], **own
        )
        self.hedges = Counter("tollway_hedges_total", "Hedged requests", ["outcome"], **own)
        self.ledger_seconds = Histogram(
            "tollway_ledger_seconds", "Calls to the ledger", ["op"], buckets=_FAST, **own
        )
        self._add_gauges()

    def _add_gauges(self) -> None:
        # Each worker sees all holds, so that the last look is the truth. What is open adds up;
        # a breaker or a loop is as bad as the worst worker's. A dead worker has none of these.
        latest: dict[str, Any] = {"registry": self.registry, "multiprocess_mode": "mostrecent"}
        total = latest | {"multiprocess_mode": "livesum"}
        worst = latest | {"multiprocess_mode": "livemax"}
        self.breaker_open = Gauge(
            "tollway_breaker_open",
            "1 while an endpoint is left alone",
            ["provider", "model"],
            **worst,
        )
        self.open_holds = Gauge("tollway_ledger_open_holds", "Open holds, all workers", **latest)
        self.open_streams = Gauge("tollway_open_streams", "Requests being answered", **total)
        self.queue_depth = Gauge("tollway_queue_depth", "Requests waiting for a place", **total)
        self.loop_lag = Gauge(
            "tollway_event_loop_lag_seconds", "How late the last tick was", **worst
        )

    @contextmanager
    def ledger(self, op: str) -> Iterator[None]:
        """Time one call to the ledger."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ledger_seconds.labels(op).observe(time.perf_counter() - started)

    def tried(self, exchange: Exchange, attempt: Attempt) -> None:
        """Count one try of an endpoint."""
        model = exchange.candidate.view.model if exchange.candidate else ""
        self.attempts.labels(attempt.provider, model, attempt.outcome).inc()

    def breaker(self, endpoint: Endpoint) -> None:
        """Show whether an endpoint is left alone."""
        labels = self.breaker_open.labels(endpoint.settings.slug, endpoint.model.id)
        labels.set(endpoint.breaker.is_open)

    def ended(self, exchange: Exchange, now: float) -> None:
        """Count a request that was planned or refused, and write its line."""
        view = exchange.candidate.view if exchange.candidate else None
        model = view.model if view else exchange.plan_model
        self.requests.labels("openai", model, exchange.status).inc()
        self.request_seconds.labels(model).observe(now - exchange.opened)
        bill = exchange.bill
        if bill is not None and view is not None and exchange.outcome is not Outcome.FAILED:
            for kind, count in tokens_by_kind(bill.usage).items():
                self.tokens.labels(view.provider, model, kind).inc(count)
            self.charge.labels(model).inc(bill.cost.charge_nanodollars)
            self.cost.labels(view.provider, model, "true").inc(bill.cost.upstream_nanodollars)
            if exchange.content_at is not None and exchange.finished_at is not None:
                seconds = exchange.finished_at - exchange.content_at
                if seconds > 0 and bill.usage.completion_tokens > 1:
                    rate = (bill.usage.completion_tokens - 1) / seconds
                    self.output_rate.labels(view.provider, model).observe(rate)
        log.info("request", extra={"fields": _line(exchange, now)})

    def refused(self, reply: ErrorReply) -> None:
        """Count a request that was refused before any try."""
        self.rejections.labels(reply.kind).inc()

    def turned_away(self, reply: ErrorReply, request_id: str) -> None:
        """Count and log an error answer that no exchange stands behind."""
        self.requests.labels("openai", "", reply.status).inc()
        fields = {"request_id": request_id, "status": reply.status, "error": reply.kind}
        log.info("request", extra={"fields": fields})

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
        "tokens": tokens_by_kind(bill.usage) if bill else {},
        "charge_nanodollars": bill.cost.charge_nanodollars if bill else 0,
        "error": exchange.error,
    }


def log_fault(error: Exception, request_id: str) -> None:
    """Log a fault of our own with its trace."""
    log.error("a handler failed", exc_info=error, extra={"fields": {"request_id": request_id}})


class JSONFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; ``extra={"fields": {...}}`` adds to it."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
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
