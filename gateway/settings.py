"""The configuration: what may be written, its defaults, and what each number bounds.

Frozen pydantic models; ``gateway/config.py`` reads the file and words the errors. Names and
shapes are those of the interface page in ``docs/configuration.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

import backends
from backends.base import BackendConfig
from policies import pricing

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "tools": ("tools", "tool_choice", "parallel_tool_calls"),
    "vision": ("image_url",),
    "audio": ("input_audio",),
    "video": ("video_url",),
    "files": ("file",),
    "structured_output": ("response_format",),
    "reasoning": ("reasoning", "reasoning_effort"),
    "logprobs": ("logprobs", "top_logprobs", "completions.logprobs"),
    "embeddings": ("embeddings",),
}
"""A capability switched off makes an endpoint infeasible for these fields and parts."""

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s\x00-\x1f]+$")]


def _decimal(value: Any) -> Any:
    # A YAML number arrives as a float; its shortest decimal form is what was written.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _exact(convert: Callable[[Decimal], int]) -> AfterValidator:
    def check(value: Decimal) -> Decimal:
        convert(value)
        return value

    return AfterValidator(check)


Rate = Annotated[Decimal, BeforeValidator(_decimal), _exact(pricing.picodollars_per_token)]
Fee = Annotated[Decimal, BeforeValidator(_decimal), _exact(pricing.picodollars)]
Markup = Annotated[Decimal, BeforeValidator(_decimal), _exact(pricing.basis_points)]


class Frozen(BaseModel):
    """Base of all settings: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )
    later: ClassVar[dict[str, str]] = {}
    """Keys that the interface names and that this version does not offer yet."""

    @model_validator(mode="before")
    @classmethod
    def _not_yet(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key, what in cls.later.items():
                if data.get(key) not in (None, False):
                    raise ValueError(f"'{key}': {what} in this version; leave it out")
        return data


class PriceSettings(Frozen):
    """What an endpoint costs: USD per million tokens; ``request`` and ``image`` USD each."""

    later = {"tiers": "price tiers are not offered"}
    prompt: Rate
    completion: Rate
    cached: Rate | None = None
    cache_write: Rate | None = None
    reasoning: Rate | None = None
    request: Fee = Decimal(0)
    image: Fee = Decimal(0)
    tiers: None = None

    def price(self) -> pricing.Price:
        """Return the same in integers."""
        rate = pricing.picodollars_per_token
        return pricing.Price(
            prompt=rate(self.prompt),
            completion=rate(self.completion),
            cached=None if self.cached is None else rate(self.cached),
            cache_write=None if self.cache_write is None else rate(self.cache_write),
            reasoning=None if self.reasoning is None else rate(self.reasoning),
            request=pricing.picodollars(self.request),
            image=pricing.picodollars(self.image),
        )


class TimeoutSettings(Frozen):
    """Bounds on an attempt. Absent first-token and stall limits depend on the backend."""

    connect_ms: int = Field(3_000, gt=0)
    first_token_ms: int | None = Field(None, gt=0)
    stall_ms: int | None = Field(None, gt=0)
    total_ms: int = Field(900_000, gt=0)


class BreakerSettings(Frozen):
    """How long an endpoint is left alone after it failed; doubles up to the maximum."""

    open_ms: int = Field(5_000, gt=0)
    max_open_ms: int = Field(60_000, gt=0)
    failures: int = Field(5, gt=0)
    """Failures in a row that open it. A refused credential opens it at once."""


class EndpointSettings(Frozen):
    """One way to serve a model. Keys that are not here are the backend kind's own."""

    later = {
        "limits": "limits of an endpoint are not offered",
        "credentials": "several credentials are not offered (use api_key_env or api_key_file)",
        "labels": "labels are not offered",
    }
    backend: str
    provider: Name | None = None
    base_url: str = ""
    api_key_env: str | None = None
    api_key_file: Path | None = None
    model: Name | None = None
    price: PriceSettings
    context_tokens: int | None = Field(None, gt=0)
    max_output_tokens: int | None = Field(None, gt=0)
    max_image_tokens: int = Field(4096, ge=0)
    """What one image can cost in prompt tokens here, for the hold."""

    capabilities: dict[str, bool] = {}
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: int = Field(2, ge=0, le=10)
    breaker: BreakerSettings = BreakerSettings()
    limits: None = None
    credentials: None = None
    labels: None = None
    options: dict[str, Any] = {}
    """The keys that only this kind of backend has, gathered."""

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if "options" in data:
            raise ValueError("'options': write the backend's own keys beside the others")
        owners = backends.option_owners()
        options = {name: value for name, value in data.items() if name in owners}
        rest = {name: value for name, value in data.items() if name not in owners}
        kind = data.get("backend")
        for name, value in tuple(options.items()):
            if kind in backends.kinds() and kind not in owners[name]:
                if value:
                    which = " or ".join(owners[name])
                    raise ValueError(f"{name!r}: only for backend {which}; leave it out")
                del options[name]
        return rest | {"options": options}

    @model_validator(mode="after")
    def _fits_backend(self, info: ValidationInfo) -> Self:
        del info
        backends.check(
            BackendConfig(
                kind=self.backend,
                model=self.model or "",
                base_url=self.base_url,
                options=self.options,
            )
        )
        if unknown := sorted(set(self.capabilities) - set(CAPABILITIES)):
            raise ValueError(
                f"'capabilities.{unknown[0]}': unknown; known are {', '.join(CAPABILITIES)}"
            )
        if self.api_key_env and self.api_key_file:
            raise ValueError("'api_key_env' and 'api_key_file': give one of them")
        return self

    @property
    def slug(self) -> str:
        """The provider's name in replies."""
        return self.provider or self.backend

    @property
    def slow(self) -> bool:
        """Whether silence may last minutes: a local model on a CPU, a model that reasons."""
        return self.backend == "local" or self.capabilities.get("reasoning", False)

    @property
    def first_token_s(self) -> float:
        """The first-token deadline in seconds."""
        return (self.timeouts.first_token_ms or (120_000 if self.slow else 10_000)) / 1000

    @property
    def whole_s(self) -> float:
        """The same in seconds for what comes whole, and so has no first token."""
        return (self.timeouts.first_token_ms or 120_000) / 1000

    @property
    def stall_s(self) -> float:
        """The stall deadline in seconds."""
        return (self.timeouts.stall_ms or (180_000 if self.slow else 15_000)) / 1000


class ModelSettings(Frozen):
    """One public model."""

    later = {
        "hedge": "hedging is not offered",
        "sla": "latency SLAs are not offered",
        "continuation": "continuation after content is not offered",
    }
    id: Name
    aliases: tuple[Name, ...] = ()
    strategy: Literal["ordered", "cheapest"] = "cheapest"
    markup: Markup | None = None
    charge_broken: bool = True
    endpoints: tuple[EndpointSettings, ...] = Field(min_length=1)
    hedge: None = None
    sla: None = None
    continuation: Literal[False] = False

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if sum(endpoint.backend == "local" for endpoint in self.endpoints) > 1:
            raise ValueError("'endpoints': one 'local' endpoint per model; it has one engine")
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
