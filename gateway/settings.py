"""The configuration: what may be written, its defaults, and what each number bounds.

Frozen pydantic models; ``gateway/config.py`` reads the file and words the errors. Names and
shapes are those of the interface page in ``docs/configuration.md``.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

import backends
from gateway import prices
from gateway.endpoint_settings import EVERY, EndpointSettings, Frozen, Markup, Name
from policies import pricing

UPSTREAM_NAME: Final = re.compile(r"(?!.*//)[\w@~](?!.*/\.)[\w.:@~/+-]{0,199}", re.ASCII)
"""What may stand for ``*``: some upstreams have the name in the path of their URL."""


class ModelSettings(Frozen):
    """One public model."""

    later = {
        "hedge": "hedging is not offered",
        "sla": "latency SLAs are not offered",
        "continuation": "continuation after content is not offered",
    }
    id: Name
    """A name that ends with ``*`` stands for every name that begins so."""

    aliases: tuple[Name, ...] = ()
    expires: date | None = None
    """The last day on which it is served (UTC)."""

    replacement: Name | None = None
    """What to use instead, for the message after that."""

    strategy: Literal["ordered", "cheapest"] = "cheapest"
    markup: Markup | None = None
    charge_broken: bool = True
    endpoints: tuple[EndpointSettings, ...] = Field(min_length=1)
    hedge: None = None
    sla: None = None
    continuation: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _names_of_a_wildcard(cls, data: Any) -> Any:
        """An endpoint of a wildcard gets the name that was asked, unless it says another."""
        if not isinstance(data, dict) or not str(data.get("id", "")).endswith(EVERY):
            return data
        endpoints = data.get("endpoints")
        if not isinstance(endpoints, list | tuple):
            return data
        named = [
            {"model": EVERY, **endpoint} if isinstance(endpoint, dict) else endpoint
            for endpoint in endpoints
        ]
        return {**data, "endpoints": named}

    @model_validator(mode="after")
    def _stars(self) -> Self:
        if EVERY in self.id[:-1] or any(EVERY in alias for alias in self.aliases):
            raise ValueError("'id': one '*', and at its end, as in 'acme/*'; 'aliases' have none")
        if self.is_wildcard and self.aliases:
            raise ValueError(
                "'aliases': a wildcard has none; give a model of that id its own entry"
            )
        for endpoint in self.endpoints:
            stars = (endpoint.model or "").count(EVERY)
            if stars > self.is_wildcard:
                raise ValueError("'endpoints': 'model: \"*\"' needs an 'id' that ends with '*'")
        return self

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every name that begins like it."""
        return self.id.endswith(EVERY)

    def covers(self, name: str) -> str | None:
        """Return what a name has in the place of a wildcard's star; None where it cannot be."""
        rest = name.removeprefix(self.id[:-1])
        fits = len(rest) + len(self.id) - 1 == len(name) and UPSTREAM_NAME.fullmatch(rest)
        return rest if fits else None

    def named(self, name: str) -> ModelSettings | None:
        """Return the model that a wildcard stands for under one name.

        None where the name could not be an upstream's, or no endpoint has a price for it.
        """
        rest = self.covers(name)
        every = (one.named(rest) for one in self.endpoints) if rest is not None else ()
        endpoints = tuple(one for one in every if one is not None)
        return self.model_copy(update={"id": name, "endpoints": endpoints}) if endpoints else None

    def names(self) -> tuple[str, ...]:
        """Return the names that the table of list prices knows for a wildcard."""
        found: dict[str, None] = {}
        for endpoint in self.endpoints:
            before, _, after = (endpoint.model or EVERY).partition(EVERY)
            for known in prices.known(backends.price_list(endpoint.backend, endpoint.options)):
                if known.startswith(before) and known.endswith(after):
                    found[self.id[:-1] + known[len(before) : len(known) - len(after)]] = None
        return tuple(found)

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if sum(endpoint.backend == "local" for endpoint in self.endpoints) > 1:
            raise ValueError("'endpoints': one 'local' endpoint per model; it has one engine")
        if self.is_wildcard and any(endpoint.backend == "local" for endpoint in self.endpoints):
            raise ValueError("'endpoints': an engine serves one model; 'id' may not end with '*'")
        return self

    @field_validator("strategy", mode="before")
    @classmethod
    def _offered(cls, value: Any) -> Any:
        if value in ("balanced", "fastest"):
            raise ValueError(f"{value} is not offered in this version; write ordered or cheapest")
        return value


class AccountSettings(Frozen):
    """Limits and markup of one account. Absent means none."""

    rpm: int | None = Field(None, gt=0)
    tpm: int | None = Field(None, gt=0)
    concurrency: int | None = Field(None, gt=0)
    markup: Markup | None = None


class RedisSettings(Frozen):
    """Where the ledger lives."""

    url: str = "embedded"
    timeout_s: float = Field(2.0, gt=0)

    @model_validator(mode="after")
    def _known_scheme(self) -> Self:
        if self.url.startswith("redis+cluster://"):
            raise ValueError("'url': clusters are not offered in this version; use redis://")
        if self.url != "embedded" and not self.url.startswith(("unix://", "redis://", "rediss://")):
            raise ValueError("'url': write embedded, unix:///path, redis://host or rediss://host")
        return self


class LedgerSettings(Frozen):
    """Periods of the ledger."""

    hold_ttl_s: float = Field(60.0, gt=0)
    progress_s: float = Field(2.0, gt=0)
    sweep_s: float = Field(1.0, gt=0)
    trim_s: float = Field(60.0, gt=0)
    key_ttl_s: float = Field(5.0, gt=0)
    """How long a looked-up key may be used before it is looked up again."""

    generation_days: int = Field(30, gt=0)
    generations: int = Field(1_000_000, gt=0)
    free_rpm: int | None = Field(20, gt=0)
    """Requests a minute per account for models that cost nothing; null for no limit."""

    @model_validator(mode="after")
    def _holds_outlive_progress(self) -> Self:
        if self.progress_s * 2 >= self.hold_ttl_s:
            raise ValueError("'hold_ttl_s': must be more than twice 'progress_s'")
        return self


class ServerSettings(Frozen):
    """Bounds of a worker."""

    max_head_bytes: int = Field(65_536, gt=0)
    read_head_s: float = Field(30.0, gt=0)
    max_body_bytes: int = Field(20_000_000, gt=0)
    max_bodies_bytes: int = Field(200_000_000, gt=0)
    discard_body_bytes: int = Field(100_000_000, gt=0)
    discard_body_s: float = Field(10.0, gt=0)
    read_body_s: float = Field(30.0, gt=0)
    first_comment_ms: int = Field(5_000, gt=0)
    """Waiting this long for content sends the headers and a comment."""

    keepalive_ms: int = Field(15_000, gt=0)
    slow_reader_s: float = Field(30.0, gt=0)
    drain_seconds: float = Field(30.0, gt=0)
    reload_ready_seconds: float = Field(900.0, gt=0)
    """How long workers and engines that SIGHUP starts may take; then the old ones stay."""

    reload_drain_seconds: float = Field(900.0, gt=0)
    """How long open streams may go on after SIGHUP, in workers of the old configuration."""

    max_streams: int = Field(20_000, gt=0)
    shed_lag_ms: int = Field(500, gt=0)
    """A tick that is later than this counts as overload."""

    shed_lag_s: float = Field(2.0, ge=0)
    """Overload that lasts this long sheds new requests, until it is over for as long."""

    output_default_tokens: int = Field(16_384, gt=0)
    retry_base_ms: int = Field(100, gt=0)
    retry_cap_ms: int = Field(2_000, gt=0)
    retry_after_max_s: float = Field(5.0, ge=0)
    """A 429 that asks to wait longer moves on instead."""


class EngineSettings(Frozen):
    """Bounds of each built-in engine."""

    max_running: int = Field(16, gt=0)
    max_queued: int = Field(64, gt=0)


class Settings(Frozen):
    """The whole configuration."""

    redis: RedisSettings = RedisSettings()
    markup: Markup = Decimal(0)
    models: tuple[ModelSettings, ...] = Field(min_length=1)
    accounts: dict[Name, AccountSettings] = {}
    ledger: LedgerSettings = LedgerSettings()
    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for model in self.models:
            for name in (model.id, *model.aliases):
                if name in seen:
                    raise ValueError(f"'models': the name {name!r} is used twice")
                seen.add(name)
        return self

    def markup_bp(self, model: ModelSettings) -> int:
        """Return the markup on a model, in basis points, where no caller has one of its own."""
        return pricing.basis_points(self.markup if model.markup is None else model.markup)
