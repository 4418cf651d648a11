"""Prices and the arithmetic of money: integers only, one rounding per request.

Prices are pico-dollars per token (10^-12 USD; equal to micro-dollars per million tokens),
charges are nano-dollars (10^-9 USD). The one rounding is upward and happens when the sum of
all parts, with the markup, becomes a charge.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from decimal import Context, Decimal, Inexact
from functools import lru_cache

import msgspec

from backends.types import Usage

PICO_PER_NANO = 1000
NANO_PER_USD = 10**9
PICO_PER_USD = 10**12
_EXACT = Context(prec=60, traps=[Inexact])

LARGEST_AMOUNT = 10**12
"""Of anything that is configured or granted, in its own unit."""

FULL_BP = 10_000
"""Basis points of one whole; a markup of 0.05 is 500."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates of long prompts: above so many prompt tokens, and then for every token."""

    above_prompt_tokens: int
    prompt: int
    completion: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What an endpoint charges. Token rates in pico-dollars per token, fees each."""

    prompt: int
    completion: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    request: int = 0
    image: int = 0
    tiers: tuple[Tier, ...] = ()
    """Rising by what they are above."""

    @property
    def version(self) -> str:
        """A short name of exactly these rates, kept with every charge."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:8]

    @property
    def is_free(self) -> bool:
        """Whether nothing at this endpoint costs anything."""
        levels: tuple[Price | Tier, ...] = (self, *self.tiers)
        rates = (rate for level in levels for rate in _rates(level))
        return not any(rates) and not self.request and not self.image

    def at(self, prompt_tokens: int) -> Price | Tier:
        """Return the token rates of a prompt of so many tokens: those of the last tier below."""
        return next(
            (t for t in reversed(self.tiers) if prompt_tokens > t.above_prompt_tokens), self
        )


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price with the markup that a caller pays on it, frozen when the request starts."""

    price: Price
    markup_bp: int
    price_version: str

    def charge_nanodollars(self, cost_picodollars: int) -> int:
        """Return what the caller pays for an upstream cost: marked up, rounded up once."""
        return -(-cost_picodollars * (FULL_BP + self.markup_bp) // (FULL_BP * PICO_PER_NANO))


class CostParts(msgspec.Struct, frozen=True, gc=False):
    """The upstream cost of an answer in pico-dollars, by side."""

    prompt_picodollars: int
    completion_picodollars: int
    fees_picodollars: int

    @property
    def total_picodollars(self) -> int:
        """Everything."""
        return self.prompt_picodollars + self.completion_picodollars + self.fees_picodollars


@lru_cache(maxsize=4096)
def tariff(price: Price, markup_bp: int) -> Tariff:
    """Freeze a price and a markup. Kept: naming the version costs more than the rest of a plan."""
    return Tariff(price, markup_bp, price.version)


def cost(price: Price, usage: Usage, images: int = 0) -> CostParts:
    """Return the upstream cost of a usage whose parts lie within their totals."""
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    thought = usage.reasoning_tokens or 0
    rates = price.at(usage.prompt_tokens) if price.tiers else price
    prompt = (
        (usage.prompt_tokens - cached - written) * rates.prompt
        + cached * _either(rates.cached, rates.prompt)
        + written * _either(rates.cache_write, rates.prompt)
    )
    completion = (usage.completion_tokens - thought) * rates.completion + thought * _either(
        rates.reasoning, rates.completion
    )
    return CostParts(prompt, completion, price.request + images * price.image)


def worst_case_nanodollars(
    tariff: Tariff, *, prompt_bound: int, output_bound: int, copies: int, images: int
) -> int:
    """Return the hold: every token at the dearest rate of its side that may apply.

    Of the tiers those may apply that a prompt within its bound can reach.
    """
    price = tariff.price
    fees = price.request + images * price.image
    outputs = output_bound * copies
    most = _dearest(price, prompt_bound, outputs)
    for tier in price.tiers:
        if prompt_bound > tier.above_prompt_tokens:
            most = max(most, _dearest(tier, prompt_bound, outputs))
    return tariff.charge_nanodollars(most + fees)


def picodollars_per_token(usd_per_million: Decimal) -> int:
    """Convert a configured price, exactly.

    Raises:
        ValueError: it is negative, not finite, or has more than 6 decimals.
    """
    return _exact(usd_per_million, 10**6, "USD per million tokens with at most 6 decimals")


def picodollars(usd: Decimal) -> int:
    """Convert a configured fee in USD, exactly.

    Raises:
        ValueError: it is negative, not finite, or has more than 6 decimals.
    """
    _exact(usd, 10**6, "USD with at most 6 decimals")
    return _exact(usd, PICO_PER_USD, "USD")


def basis_points(markup: Decimal) -> int:
    """Convert a configured markup (0.05 is five percent), exactly.

    Raises:
        ValueError: it is negative, not finite, or has more than 4 decimals.
    """
    return _exact(markup, FULL_BP, "a fraction such as 0.05, with at most 4 decimals")


def nanodollars(usd: Decimal) -> int:
    """Convert an amount of money, exactly.

    Raises:
        ValueError: it is negative, not finite, or has more than 9 decimals.
    """
    return _exact(usd, NANO_PER_USD, "USD with at most 9 decimals")


def _exact(value: Decimal, scale: int, what: str) -> int:
    if not value.is_finite() or not 0 <= value <= LARGEST_AMOUNT:
        raise ValueError(f"{value} must be {what}, from 0 to {LARGEST_AMOUNT}")
    try:
        scaled = _EXACT.multiply(value, Decimal(scale))
    except Inexact:
        raise ValueError(f"{value} must be {what}") from None
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{value} must be {what}")
    return int(scaled)


def _dearest(rates: Price | Tier, prompt_tokens: int, output_tokens: int) -> int:
    prompt_rate = max(rates.prompt, rates.cached or 0, rates.cache_write or 0)
    return prompt_tokens * prompt_rate + output_tokens * max(rates.completion, rates.reasoning or 0)


def _rates(level: Price | Tier) -> tuple[int | None, ...]:
    return (level.prompt, level.completion, level.cached, level.cache_write, level.reasoning)


def _either(rate: int | None, fallback: int) -> int:
    return fallback if rate is None else rate
