"""The price table: made from another project's figures, and never below them."""

from __future__ import annotations

import dataclasses
import datetime
from decimal import Decimal

import msgspec
import pytest

from gateway import prices
from gateway.prices import Match
from policies.pricing import cost

genai = pytest.importorskip("genai_prices")

from genai_prices.data_snapshot import get_snapshot  # noqa: E402
from genai_prices.types import (  # noqa: E402
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from backends.types import Usage  # noqa: E402
from deploy.prices import compiled, written  # noqa: E402

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)


def info(given: ModelPrice | list[ConditionalPrice], **more: object) -> ModelInfo:
    """A model of the source."""
    return ModelInfo(id="m", match=ClauseEquals(equals="m"), prices=given, **more)  # type: ignore[arg-type]


def usd(prompt: str, completion: str = "0", **more: Decimal) -> ModelPrice:
    """A price of the source."""
    return ModelPrice(input_mtok=Decimal(prompt), output_mtok=Decimal(completion), **more)


@pytest.mark.parametrize(
    ("dollars", "picodollars"),
    [
        ("0.15", 150_000),
        ("0.000001", 1),
        ("0.18000000000000002", 180_000),
        ("0.0833333333333333", 83_334),
        ("0", 0),
    ],
)
def test_rates_are_whole_picodollars_rounded_up_after_the_noise_is_gone(
    dollars: str, picodollars: int
) -> None:
    """Nine decimals of dollars per million tokens count; what is finer came from floats."""
    entry = compiled(info(usd(dollars)), NOW)
    assert entry is not None
    assert entry.price.prompt == picodollars


def test_of_dates_the_one_of_today_counts_and_of_hours_the_dearest() -> None:
    """A price that starts later does not count yet, one that was replaced no longer."""
    start = datetime.date
    entry = compiled(
        info(
            [
                ConditionalPrice(prices=usd("9")),
                ConditionalPrice(StartDateConstraint(start(2026, 1, 1)), prices=usd("1", "5")),
                ConditionalPrice(
                    TimeOfDateConstraint(datetime.time(1), datetime.time(2)), prices=usd("2", "4")
                ),
                ConditionalPrice(StartDateConstraint(start(2027, 1, 1)), prices=usd("99")),
            ]
        ),
        NOW,
    )
    assert entry is not None
    assert (entry.prompt, entry.completion) == (2_000_000, 5_000_000)


def test_tiers_parts_and_windows_are_kept() -> None:
    """A kind without tiers keeps its rate; audio that costs more than text is unpriced."""
    tiered = TieredPrices(base=Decimal(1), tiers=[Tier(start=200, price=Decimal(2))])
    given = ModelPrice(
        input_mtok=tiered,
        output_mtok=Decimal(3),
        input_audio_mtok=Decimal(7),
        input_image_mtok=Decimal(1),
        requests_kcount=Decimal(5),
    )
    entry = compiled(info(given, context_window=400), NOW)
    assert entry is not None
    price = entry.price
    assert (price.prompt, price.request) == (1_000_000, 5 * 10**9)
    assert (price.at(200).prompt, price.at(201).prompt) == (1_000_000, 2_000_000)
    assert price.at(201).completion == 3_000_000
    assert (entry.context, entry.unpriced) == (400, ("input_audio",))


def test_what_is_not_sold_by_the_token_is_left_out() -> None:
    """By the hour or by the page: such a model needs a price in the configuration."""
    assert compiled(info(ModelPrice(audio_hours=Decimal(1))), NOW) is None
    assert compiled(info(ModelPrice()), NOW) is None


@pytest.mark.parametrize(
    ("name", "price", "unsold"),
    [
        ("m", usd("1", "2", output_image_mtok=Decimal(30)), True),
        ("m", usd("1", "2", output_audio_mtok=Decimal(3)), True),
        ("m", usd("1", "2", output_audio_mtok=Decimal(2)), False),
        ("gpt-4o-search-preview", usd("1", "2"), True),
        ("sonar", usd("1", "2"), True),
        ("sonar", usd("1", "2", requests_kcount=Decimal(12)), False),
    ],
)
def test_what_no_rate_covers_is_unsold(name: str, price: ModelPrice, unsold: bool) -> None:
    """Images and audio that it writes, and searches that nobody asked for."""
    entry = compiled(dataclasses.replace(info(price), id=name), NOW)
    assert entry is not None
    assert entry.unsold is unsold


def test_an_unsold_model_is_not_found_by_any_name() -> None:
    """Nor taken for its namesake that makes no images."""
    assert prices.find("google", "gemini-2.5-flash") is not None
    assert prices.find("google", "gemini-2.5-flash-image") is None
    assert prices.find("google", "gemini-2.5-flash-image-preview") is None
    assert prices.find("openai", "gpt-4o-search-preview-2025-03-11") is None
    assert "gemini-2.5-flash-image" not in prices.known("google")


def test_the_file_in_the_repository_is_what_the_tool_writes() -> None:
    """One line a model, sorted, and nothing else in it."""
    assert written(prices.table()) == prices.FILE.read_bytes()


def test_the_table_finds_what_its_source_finds() -> None:
    """By id, by another name, with a date behind it, in capitals; and nothing else."""
    wrong = []
    for provider in get_snapshot().providers:
        section = prices.table().providers.get(provider.id)
        for model in section.models if section else ():
            for name in (model, model.upper(), f"{model}-20251231", f"x{model}"):
                theirs = next((m for m in provider.models if m.id == name), None)
                theirs = theirs or next((m for m in provider.models if m.is_match(name)), None)
                if theirs is None or theirs.id not in section.models:
                    continue
                entry = section.models[theirs.id]
                if prices.find(provider.id, name) != (None if entry.unsold else entry):
                    wrong.append((provider.id, name, theirs.id))
    assert wrong == []


@pytest.mark.parametrize(("cached", "tokens"), [(0, 1000), (400, 1000), (0, 300_000)])
def test_a_cost_by_the_table_is_the_cost_by_its_source(cached: int, tokens: int) -> None:
    """Never below, and above by rounding alone, over every model whose price has no hours."""
    usage = genai.Usage(input_tokens=tokens, cache_read_tokens=cached, output_tokens=100)
    made = datetime.datetime.fromisoformat(prices.table().date).replace(tzinfo=datetime.UTC)
    checked = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            section = prices.table().providers.get(provider.id)
            entry = section.models.get(model.id) if section else None
            hours = isinstance(model.prices, list) and any(
                isinstance(c.constraint, TimeOfDateConstraint) for c in model.prices
            )
            if entry is None or hours:
                continue
            theirs = model.get_prices(made).calc_price(usage)["total_price"] * 10**12
            ours = cost(entry.price, Usage(tokens, 100, cached_tokens=cached)).total_picodollars
            assert -1 < ours - theirs < tokens, (provider.id, model.id)
            checked += 1
    assert checked > 2000


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        (Match(equals="ab"), ("ab",)),
        (Match(starts_with="a"), ("ab", "abc")),
        (Match(ends_with="c"), ("abc", "c")),
        (Match(contains="b"), ("ab", "abc")),
        (Match(regex="^a.$"), ("ab",)),
        (Match(any_of=(Match(equals="c"), Match(equals="ab"))), ("ab", "c")),
        (Match(all_of=(Match(starts_with="a"), Match(ends_with="c"))), ("abc",)),
    ],
)
def test_a_pattern_fits_as_its_source_means_it(match: Match, fits: tuple[str, ...]) -> None:
    """One kind of clause each."""
    assert tuple(name for name in ("ab", "abc", "c") if match.fits(name)) == fits
    assert msgspec.json.decode(msgspec.json.encode(match), type=Match) == match
