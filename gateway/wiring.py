"""The composition root of a worker: from settings to running parts, closed in reverse order."""

from __future__ import annotations

import importlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway import config
from gateway.auth import Authenticator
from gateway.background import Background
from gateway.body import Bodies
from gateway.cashier import Cashier
from gateway.catalogue import Catalogue
from gateway.clock import TICK_S, Ticker, Times
from gateway.counts import PromptCounts
from gateway.dispatch import Dispatcher, Parts
from gateway.endpoint_settings import CAPABILITIES, EVERY, EndpointSettings
from gateway.endpoints import Breaker, Endpoint, EndpointTable
from gateway.garbage import Garbage
from gateway.health import Health
from gateway.overload import Overload
from gateway.settings import ModelSettings, Settings
from gateway.telemetry import Metrics
from gateway.tokens import Tokens
from gateway.worker import Worker
from policies.ledger.base import LedgerSettings, LedgerUnavailable
from policies.ledger.client import Ledger
from policies.ledger.connect import connect
from policies.ledger.keys import KeyStore
from policies.ledger.sweeper import Sweeper
from policies.pricing import Price
from policies.types import Policy, Strategy

log = logging.getLogger("tollway")

CLOSE_S = 10.0
"""How often backends that were let go are closed."""

STRATEGIES: Mapping[Strategy, tuple[str, ...]] = {
    "ordered": ("feasible", "healthy", "ordered"),
    "cheapest": ("feasible", "healthy", "cheapest"),
}
"""Which policies plan for each strategy, in turn: modules of ``policies`` with ``build``."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told by whoever starts it."""

    settings: Settings
    source: Path | None
    """The configuration file, for relative paths; None without one."""

    redis_url: str
    pepper: bytes
    engines: Mapping[str, str]
    """Engine sockets by model name."""

    tokenizer: str = ""
    """The tokenizer process's socket; empty where no endpoint names an encoding."""

    announced: Callable[[], bool] = lambda: True
    """Whether the supervisor has told the operator of the start; readiness waits for it."""

    metrics: Path | None = None
    """The folder of the metrics that all workers share; None for a worker alone."""


@asynccontextmanager
async def running(given: WorkerConfig, times: Times | None = None) -> AsyncIterator[Worker]:
    """Build a worker, run its periodic tasks, and close everything at the end.

    Raises:
        ConfigError: an endpoint's secret is missing, or its URL cannot be used.
    """
    times = times or Times()
    settings = given.settings
    async with AsyncExitStack() as stack:
        redis = connect(given.redis_url, timeout_s=settings.redis.timeout_s)
        ledger = Ledger(
            redis, settings=ledger_settings(settings), timeout_s=settings.redis.timeout_s
        )
        stack.push_async_callback(ledger.aclose)
        keys = KeyStore(redis, given.pepper, timeout_s=settings.redis.timeout_s)
        stack.push_async_callback(keys.aclose)
        await _load_functions(ledger)
        metrics, ticker = Metrics(given.metrics), Ticker(times.now)
        stack.callback(metrics.access.flush)
        health = Health(ledger, given.engines, given.announced)
        stack.push_async_callback(health.aclose)
        background = Background()
        stack.push_async_callback(background.aclose)
        table = EndpointTable(
            settings.models, lambda model: _endpoints(given, model, metrics), times
        )
        stack.push_async_callback(table.aclose)
        counts = PromptCounts(Tokens(given.tokenizer), table)
        cashier = Cashier(ledger, settings.ledger, background, metrics, counts, times.now)
        metrics.label = table.label
        parts = Parts(
            table=table,
            counts=counts,
            cashier=cashier,
            ticker=ticker,
            metrics=metrics,
            policies={name: load_policies(names) for name, names in STRATEGIES.items()},
            settings=settings.server,
            rng=random.Random(),  # noqa: S311 - jitter of retries, no secret
        )
        auth = Authenticator(
            keys, settings.accounts, background, ttl_s=settings.ledger.key_ttl_s, times=times
        )
        worker = Worker(
            settings=settings,
            times=times,
            ticker=ticker,
            background=background,
            bodies=Bodies(settings.server),
            ledger=ledger,
            auth=auth,
            table=table,
            dispatcher=Dispatcher(parts),
            metrics=metrics,
            health=health,
            overload=Overload(settings.server, times.now()),
            catalogue=Catalogue(table),
            counts=counts,
        )
        _start_periodic(worker, cashier)
        yield worker


def load_policies(names: tuple[str, ...]) -> tuple[Policy, ...]:
    """Import and build policies by the names of their modules."""
    return tuple(importlib.import_module(f"policies.{name}").build() for name in names)


def ledger_settings(settings: Settings) -> LedgerSettings:
    """Return the ledger's own settings."""
    given = settings.ledger
    return LedgerSettings(
        hold_ttl_ms=round(given.hold_ttl_s * 1000),
        generation_ttl_s=given.generation_days * 86_400,
        max_generations=given.generations,
    )


async def _load_functions(ledger: Ledger) -> None:
    """Load the ledger's functions, or later: a call that misses them loads them, too."""
    try:
        await ledger.start()
    except LedgerUnavailable as error:
        log.warning("Redis is away: %s; requests are refused until it answers", error)


def _start_periodic(worker: Worker, cashier: Cashier) -> None:
    ledger, settings, background = worker.ledger, worker.settings.ledger, worker.background
    sweeper = Sweeper(ledger)
    garbage = Garbage(worker.times.now())

    async def tick() -> None:
        worker.metrics.loop_lag.set(worker.overload.tick(worker.times.now()))
        worker.metrics.open_streams.set(len(worker.ticker))
        await worker.ticker.tick()
        worker.metrics.access.flush()
        garbage.tick(worker.times.now(), len(worker.ticker))

    async def sweep() -> None:
        swept = await sweeper.run_once()
        worker.metrics.open_holds.set(swept.open_holds)

    background.every(TICK_S, tick, name="tick")
    background.every(settings.progress_s, cashier.report, name="progress")
    background.every(settings.sweep_s, sweep, name="sweep")
    background.every(settings.trim_s, ledger.trim_generations, name="trim")
    background.every(CLOSE_S, worker.table.close_unused, name="close unused")


def _endpoints(given: WorkerConfig, model: ModelSettings, metrics: Metrics) -> tuple[Endpoint, ...]:
    """Build the endpoints of one model; nothing connects yet."""
    endpoints = []
    for position, settings in enumerate(model.endpoints):
        backend = config.build_backend(model, settings, given.source, given.engines)
        endpoint = Endpoint(
            id=endpoint_id(model, position),
            model=model,
            settings=settings,
            position=position,
            backend=backend,
            price=Price(0, 0) if EVERY in (settings.model or "") else settings.rates(),
            markup_bp=given.settings.markup_bp(model),
            refused=_refused(settings),
            breaker=Breaker(settings.breaker),
            tokenizer=config.tokenizer(settings, given.source),
        )
        if not model.is_wildcard:
            metrics.breaker(endpoint)
        endpoints.append(endpoint)
    return tuple(endpoints)


def endpoint_id(model: ModelSettings, position: int) -> str:
    """Return an endpoint's name in plans, records and the journal."""
    slugs = [endpoint.slug for endpoint in model.endpoints]
    slug = slugs[position]
    same = slugs[:position].count(slug)
    return f"{model.id}@{slug}" + (f"#{same + 1}" if same else "")


def _refused(settings: EndpointSettings) -> frozenset[str]:
    """Return the fields and parts that configuration switches off."""
    off = (
        fields for name, fields in CAPABILITIES.items() if not settings.capabilities.get(name, True)
    )
    # A service tier changes the upstream's price, and no endpoint has a price for it yet.
    # Images and audio are not made here.
    return frozenset(
        {"service_tier", "modalities", "image_config"}.union(*off, settings.unpriced())
    )
