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
    plain = usage.prompt_tokens - cached - written
    parts = cost(price, usage, images)
    assert parts.prompt_picodollars == (
        plain * price.prompt
        + cached * (price.prompt if price.cached is None else price.cached)
        + written * (price.prompt if price.cache_write is None else price.cache_write)
    )
    assert parts.completion_picodollars == (
        (usage.completion_tokens - thought) * price.completion
        + thought * (price.completion if price.reasoning is None else price.reasoning)
    )
    assert parts.fees_picodollars == price.request + images * price.image
    assert parts.total_picodollars == (
        parts.prompt_picodollars + parts.completion_picodollars + parts.fees_picodollars
    )


def test_a_rate_of_zero_is_a_rate() -> None:
    """Cached tokens that are free do not cost what prompt tokens cost."""
    price = Price(prompt=10, completion=20, cached=0, reasoning=0)
    assert cost(price, Usage(5, 5, cached_tokens=5, reasoning_tokens=5)).total_picodollars == 0


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
    ],
)
def test_free_means_that_nothing_costs_anything(price: Price, free: bool) -> None:
    """Free models have a rate limit of their own."""
    assert price.is_free is free
