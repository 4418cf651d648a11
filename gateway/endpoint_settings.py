"""The configuration of one endpoint: where it is, what it costs, how it is asked.

Frozen pydantic models, as in ``gateway/settings.py``, which is about everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

import backends
from backends.base import BackendConfig
from gateway import prices
from gateway.tokenizer.encodings import check_name
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

EVERY: Final = "*"
"""An upstream's name for whatever a wildcard model was asked as."""

IMAGE_TOKENS: Final = 4096
NO_PRICE: Final = "is required: {prompt: USD per million tokens, completion: ...}"

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s\x00-\x1f]+$")]


def _variable(value: str) -> str:
    # What is no name may be the key itself: it is not repeated, here or at the start.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("write the name of a variable, such as ACME_KEY, never the key itself")
    return value


Variable = Annotated[str, AfterValidator(_variable)]


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


def _encoding(value: str) -> str:
    check_name(value)
    return value


Encoding = Annotated[str, AfterValidator(_encoding)]


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


class RateSettings(Frozen):
    """USD per million tokens, by kind."""

    prompt: Rate
    completion: Rate
    cached: Rate | None = None
    cache_write: Rate | None = None
    reasoning: Rate | None = None

    def rates(self) -> dict[str, Any]:
        """Return the same in integers, by kind."""
        given = ((name, getattr(self, name)) for name in RateSettings.model_fields)
        return {
            name: None if rate is None else pricing.picodollars_per_token(rate)
            for name, rate in given
        }


class TierSettings(RateSettings):
    """What every token costs where the prompt has more than so many."""

    above_prompt_tokens: int = Field(gt=0)


class PriceSettings(RateSettings):
    """What an endpoint costs; ``request`` and ``image`` USD each."""

    request: Fee = Decimal(0)
    image: Fee = Decimal(0)
    tiers: tuple[TierSettings, ...] = ()

    @model_validator(mode="after")
    def _tiers_rise(self) -> Self:
        starts = [tier.above_prompt_tokens for tier in self.tiers]
        if any(one >= other for one, other in pairwise(starts)):
            raise ValueError("'tiers': write them with rising 'above_prompt_tokens'")
        return self

    def price(self) -> pricing.Price:
        """Return the same in integers."""
        return pricing.Price(
            **self.rates(),
            request=pricing.picodollars(self.request),
            image=pricing.picodollars(self.image),
            tiers=tuple(
                pricing.Tier(tier.above_prompt_tokens, **tier.rates()) for tier in self.tiers
            ),
        )


class CredentialSettings(Frozen):
    """Where one secret is: in a variable, or in a file that may change while it is used."""

    api_key_env: Variable | None = None
    api_key_file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.api_key_env is None) is (self.api_key_file is None):
            raise ValueError("give 'api_key_env' or 'api_key_file', and only one of them")
        return self


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
        "labels": "labels are not offered",
    }
    backend: str
    provider: Name | None = None
    base_url: str = ""
    api_key_env: Variable | None = None
    api_key_file: Path | None = None
    credentials: tuple[CredentialSettings, ...] = ()
    model: Name | None = None
    price: PriceSettings | None = None
    context_tokens: int | None = Field(None, gt=0)
    max_output_tokens: int | None = Field(None, gt=0)
    max_image_tokens: int | None = Field(None, ge=0)

    tokenizer: Encoding | None = None
    """What counts its prompts exactly, where the bound by bytes does not fit the credit."""

    capabilities: dict[str, bool] = {}
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: int = Field(2, ge=0, le=10)
    breaker: BreakerSettings = BreakerSettings()
    limits: None = None
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
        if "access_token_env" in data and "access_token_env" not in owners:
            if data["access_token_env"] and data.get("api_key_env"):
                raise ValueError("'access_token_env': another word for 'api_key_env'; give one")
            data = {**data, "api_key_env": data["access_token_env"] or data.get("api_key_env")}
            del data["access_token_env"]
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
    def _fits_backend(self) -> Self:
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
        if bool(self.api_key_env) + bool(self.api_key_file) + bool(self.credentials) > 1:
            raise ValueError("'api_key_env', 'api_key_file' and 'credentials': give one of them")
        if self.price is None and self.listed is None and EVERY not in (self.model or ""):
            where = f"; none is listed for {self.model!r}" if self.model else ""
            raise ValueError(f"'price': {NO_PRICE}{where}")
        return self

    @property
    def listed(self) -> prices.Entry | None:
        """What the table of list prices says of it."""
        return prices.find(backends.price_list(self.backend, self.options), self.model or "")

    def named(self, name: str) -> Self | None:
        """Return the endpoint with its star replaced, or None where it has no price then."""
        own = self.model_copy(update={"model": (self.model or EVERY).replace(EVERY, name)})
        return own if own.price is not None or own.listed is not None else None

    def rates(self) -> pricing.Price:
        """Return its own price, or that of the table.

        Raises:
            ValueError: there is neither.
        """
        if self.price is not None:
            return self.price.price()
        if (listed := self.listed) is None:
            raise ValueError(f"'price': {NO_PRICE}")
        return listed.price

    def window(self) -> int | None:
        """Return its window in tokens: its own, or that of the table, or None."""
        listed = self.listed
        return self.context_tokens or (listed.context if listed else None)

    def image_tokens(self) -> int:
        """Return what one image can cost in prompt tokens here, for the hold."""
        if self.max_image_tokens is not None:
            return self.max_image_tokens
        listed = self.listed
        return (listed.image if listed else None) or IMAGE_TOKENS

    def unpriced(self) -> frozenset[str]:
        """Return the parts that the table's price does not cover."""
        listed = self.listed if self.price is None else None
        return frozenset(listed.unpriced if listed else ())

    @property
    def secrets(self) -> tuple[CredentialSettings, ...]:
        """Where its credentials are."""
        if self.api_key_env or self.api_key_file:
            one = CredentialSettings(api_key_env=self.api_key_env, api_key_file=self.api_key_file)
            return (one,)
        return self.credentials

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
