"""Money is integers: exact from the configured decimal to the one rounding of the charge."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.types import Usage
from policies.pricing import (
    LARGEST_AMOUNT,
    Price,
    Tier,
    basis_points,
    cost,
    nanodollars,
    picodollars,
    picodollars_per_token,
    tariff,
    worst_case_nanodollars,
)
from tests.contracts.policy_contract import prices, tariffs

CONVERSIONS = {
    picodollars_per_token: (6, 10**6),
    picodollars: (6, 10**12),
    basis_points: (4, 10**4),
    nanodollars: (9, 10**9),
}
"""Each conversion: the decimals it takes, and its scale."""

_usages = st.integers(0, 10**6).flatmap(
    lambda most: st.builds(
        lambda cached, written, thought: Usage(most, most, cached, written, thought),
        st.none() | st.integers(0, most // 2),
        st.none() | st.integers(0, most // 2),
        st.none() | st.integers(0, most),
    )
)


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda convert: convert.__name__)
@given(whole=st.integers(0, 10**9), rest=st.integers(0, 10**9))
def test_a_configured_decimal_is_converted_exactly(convert, whole: int, rest: int) -> None:
    """No float and no rounding on the way in; equal to the fraction that was written."""
    places, scale = CONVERSIONS[convert]
    value = Decimal(f"{whole}.{rest % 10**places:0{places}d}")
    converted = convert(value)
    assert isinstance(converted, int)
    assert converted == Fraction(value) * scale


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda convert: convert.__name__)
@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-0.000001",
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "1e-10",
        "1e-999999999",
        "0.12345678901",
        "0.1000000000000000000000000000000000001",
        "0." + "0" * 80 + "1",
        "1e13",
        "1e999999999",
        str(LARGEST_AMOUNT + 1),
    ],
)
def test_an_amount_that_cannot_be_kept_exactly_is_refused(convert, text: str) -> None:
    """Below zero, not finite, too fine, or too large: never rounded, never an overflow."""
    with pytest.raises(ValueError, match="must be"):
        convert(Decimal(text))


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("-0", 0),
        ("0e-999999999", 0),
        ("0.150", 150_000),
        ("1e3", 10**9),
        ("15E-2", 150_000),
        ("0.1500000000000000000000000000000000000", 150_000),
    ],
)
def test_how_a_price_is_written_does_not_matter(text: str, amount: int) -> None:
    """Trailing zeros and exponents are the same number."""
    assert picodollars_per_token(Decimal(text)) == amount


@given(tariffs, st.integers(0, 10**18))
def test_the_charge_is_the_cost_with_markup_rounded_up_once(rates, picodollars: int) -> None:
    """Exact against fractions."""
    exact = Fraction(picodollars, 1000) * (1 + Fraction(rates.markup_bp, 10_000))
    assert rates.charge_nanodollars(picodollars) == math.ceil(exact)


@given(tariffs, st.lists(st.integers(0, 10**12), min_size=2, max_size=4))
def test_one_rounding_never_costs_more_than_several(rates, parts: list[int]) -> None:
    """The sum is rounded, not its parts: by less than a nano-dollar in all."""
    charge = rates.charge_nanodollars(sum(parts))
    assert charge <= sum(rates.charge_nanodollars(part) for part in parts)
    exact = Fraction(sum(parts), 1000) * (1 + Fraction(rates.markup_bp, 10_000))
    assert 0 <= charge - exact < 1


@given(prices, _usages, st.integers(0, 3))
def test_the_cost_is_each_kind_at_its_own_rate(price: Price, usage: Usage, images: int) -> None:
    """Absent rates: cached and cache-write as prompt, reasoning as completion."""
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    thought = usage.reasoning_tokens or 0
    reached = [t for t in price.tiers if usage.prompt_tokens > t.above_prompt_tokens]
    rates = reached[-1] if reached else price
    plain = usage.prompt_tokens - cached - written
    parts = cost(price, usage, images)
    assert parts.prompt_picodollars == (
        plain * rates.prompt
        + cached * (rates.prompt if rates.cached is None else rates.cached)
        + written * (rates.prompt if rates.cache_write is None else rates.cache_write)
    )
    assert parts.completion_picodollars == (
        (usage.completion_tokens - thought) * rates.completion
        + thought * (rates.completion if rates.reasoning is None else rates.reasoning)
    )
    assert parts.fees_picodollars == price.request + images * price.image
    assert parts.total_picodollars == (
        parts.prompt_picodollars + parts.completion_picodollars + parts.fees_picodollars
    )


def test_a_rate_of_zero_is_a_rate() -> None:
    """Cached tokens that are free do not cost what prompt tokens cost."""
    price = Price(prompt=10, completion=20, cached=0, reasoning=0)
    assert cost(price, Usage(5, 5, cached_tokens=5, reasoning_tokens=5)).total_picodollars == 0


TIERED = Price(
    prompt=1000,
    completion=2000,
    cached=100,
    tiers=(Tier(200, prompt=3000, completion=5000, cached=300), Tier(500, 7000, 9000)),
)


@pytest.mark.parametrize(
    ("tokens", "picodollars"),
    [
        (200, 200 * 1000 + 10 * 2000),
        (201, 201 * 3000 + 10 * 5000),
        (500, 500 * 3000 + 10 * 5000),
        (501, 501 * 7000 + 10 * 9000),
    ],
)
def test_a_tier_applies_above_its_start_and_then_to_every_token(
    tokens: int, picodollars: int
) -> None:
    """At its start the tier below still holds; beyond it all tokens cost more, answer included."""
    assert cost(TIERED, Usage(tokens, 10)).total_picodollars == picodollars


def test_cached_tokens_count_toward_a_tier() -> None:
    """The whole prompt decides; without a rate of its own a tier's cached token is a prompt's."""
    assert cost(TIERED, Usage(201, 0, cached_tokens=200)).total_picodollars == 3000 + 200 * 300
    assert cost(TIERED, Usage(501, 0, cached_tokens=500)).total_picodollars == 501 * 7000


@pytest.mark.parametrize(
    ("bound", "nanodollars"), [(200, 200 + 400), (201, 603 + 1000), (501, 3507 + 1800)]
)
def test_the_hold_takes_the_dearest_tier_that_the_prompt_can_reach(
    bound: int, nanodollars: int
) -> None:
    """And none above it."""
    bounds = {"prompt_bound": bound, "output_bound": 100, "copies": 2, "images": 0}
    assert worst_case_nanodollars(tariff(TIERED, 0), **bounds) == nanodollars


@given(tariffs, _usages, st.integers(0, 3), st.integers(0, 10**6))
def test_no_answer_within_its_bounds_costs_more_than_was_held(
    rates, usage: Usage, images: int, slack: int
) -> None:
    """Whatever tier it lands in, and however its tokens are made up."""
    held = worst_case_nanodollars(
        rates,
        prompt_bound=usage.prompt_tokens + slack,
        output_bound=usage.completion_tokens,
        copies=1,
        images=images,
    )
    charge = rates.charge_nanodollars(cost(rates.price, usage, images).total_picodollars)
    assert charge <= held


def test_a_million_tokens_cost_the_configured_dollars() -> None:
    """0.15 USD per million and 5 % markup are 157,500,000 nano-dollars."""
    price = Price(picodollars_per_token(Decimal("0.15")), 0)
    rates = tariff(price, basis_points(Decimal("0.05")))
    total = cost(price, Usage(10**6, 0)).total_picodollars
    assert rates.charge_nanodollars(total) == 157_500_000


def test_the_hold_takes_the_dearest_rate_of_each_side() -> None:
    """Also where cached or reasoning tokens are dearer than plain ones, or cheaper."""
    bounds = {"prompt_bound": 10, "output_bound": 10, "copies": 1, "images": 0}
    for price in (
        Price(1000, 2000),
        Price(500, 100, cached=1000, reasoning=2000),
        Price(1000, 2000, cached=0, reasoning=0),
        Price(10, 2000, cache_write=1000),
    ):
        assert worst_case_nanodollars(tariff(price, 0), **bounds) == 30


@given(prices, prices)
def test_a_price_version_names_exactly_these_rates(one: Price, other: Price) -> None:
    """Kept with every charge: equal for equal prices, different for different ones."""
    assert (one.version == other.version) == (one == other)
    assert len(one.version) == 8


@pytest.mark.parametrize(
    ("price", "free"),
    [
        (Price(0, 0), True),
        (Price(0, 0, cached=0, reasoning=0), True),
        (Price(0, 1), False),
        (Price(0, 0, reasoning=1), False),
        (Price(0, 0, request=1), False),
        (Price(0, 0, image=1), False),
        (Price(0, 0, tiers=(Tier(9, 0, 1),)), False),
    ],
)
def test_free_means_that_nothing_costs_anything(price: Price, free: bool) -> None:
    """Free models have a rate limit of their own."""
    assert price.is_free is free
