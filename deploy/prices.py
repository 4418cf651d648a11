"""Writes ``gateway/prices.json`` from the package genai-prices; ``make prices`` runs it.

A development tool: the gateway reads the table and never this. What it does to the figures:

- Rates are dollars per million tokens there and pico-dollars per token here. They are rounded to
  nine decimals, because some are sums of floats, and then up to a whole pico-dollar, so that an
  upstream's price is never understated.
- Of prices that depend on the date the one of today counts, of prices that depend on the hour
  the dearest.
- Models that are not sold by the token (by the hour, page or character) are left out.
- Audio, images and video that cost more than text are listed as unpriced: an endpoint that is
  priced from the table does not take them.
- Models that write images, audio or video at a dearer rate, or that search the web for a fee with
  every answer, are listed as unsold: an endpoint needs a price of its own for them.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import sys
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from typing import Any

import msgspec
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    TieredPrices,
    TimeOfDateConstraint,
)

from gateway.prices import FILE, Entry, Match, Provider, Rates, Table

PARTS = {
    "input_audio": "input_audio_mtok",
    "image_url": "input_image_mtok",
    "video_url": "input_video_mtok",
}
OUTPUTS = ("output_audio_mtok", "output_image_mtok", "output_video_mtok")
SEARCHES = re.compile(r"deep-research|search-(preview|api)|sonar|-online$")
"""Names of models that search unasked; the source's fee for each search is left out here."""

IMAGES = {re.compile(r"gpt-4o-mini(?!-(audio|realtime|transcribe|tts))"): 2_833 + 8 * 5_667}
"""The most prompt tokens of one image, where that is more than usual: OpenAI counts 2,833 and 5,667
for each tile, of which 2048 x 768 pixels have eight ("Images and vision", read 2026-12)."""

CLAUSES = ("equals", "starts_with", "ends_with", "contains", "regex")


def main() -> None:
    """Write the table, and say what is in it."""
    table = Table(
        source=f"genai-prices {version('genai-prices')}",
        licence="MIT",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        providers=dict(_providers(datetime.datetime.now(datetime.UTC))),
    )
    FILE.write_bytes(written(table))
    models = sum(len(section.models) for section in table.providers.values())
    sys.stdout.write(f"{FILE.name}: {len(table.providers)} sections, {models} models\n")


def written(table: Table) -> bytes:
    """Return the file's text: a line per model, so that a change can be read."""
    parts = [f'"{name}": {_json(getattr(table, name))}' for name in ("source", "licence", "date")]
    sections = []
    for name, section in sorted(table.providers.items()):
        models = [f"{_json(model)}: {_json(e)}" for model, e in sorted(section.models.items())]
        fallback = f'"fallback": {_json(section.fallback)}, ' if section.fallback else ""
        sections.append(f'{_json(name)}: {{{fallback}"models": {_block(models)}}}')
    return ("{\n" + ",\n".join([*parts, f'"providers": {_block(sections)}']) + "\n}\n").encode()


def _block(lines: list[str]) -> str:
    return "{\n" + ",\n".join(lines) + "\n}"


def _providers(now: datetime.datetime) -> Iterable[tuple[str, Provider]]:
    for provider in get_snapshot().providers:
        models = {
            model.id: entry
            for model in provider.models
            if (entry := compiled(model, now)) is not None
        }
        if models:
            fallback = tuple(provider.fallback_model_providers or ())
            yield provider.id, Provider(models, fallback)


def compiled(model: ModelInfo, now: datetime.datetime) -> Entry | None:
    """Return a model's entry; None where tokens have no price."""
    prices = [vars(price) for price in in_force(model.prices, now)]
    if not prices or any(price.get("input_mtok") is None for price in prices):
        return None
    rates = [rate for price in prices for rate in price.values()]
    starts = {tier.start for r in rates if isinstance(r, TieredPrices) for tier in r.tiers}
    requests = max(_at(price.get("requests_kcount"), 0) or Decimal(0) for price in prices)
    match = _match(model.match)
    return Entry(
        **msgspec.structs.asdict(_rates(prices, 0)),
        request=_whole(requests * 10**9),
        tiers=tuple(_rates(prices, start) for start in sorted(starts)),
        context=model.context_window,
        image=next((most for name, most in IMAGES.items() if name.search(model.id)), None),
        unpriced=tuple(part for part, key in PARTS.items() if _dearer(prices, key, "input_mtok")),
        unsold=any(_dearer(prices, key, "output_mtok") for key in OUTPUTS)
        or (not requests and SEARCHES.search(model.id) is not None),
        match=None if match == Match(equals=model.id) else match,
    )


def in_force(
    prices: ModelPrice | list[ConditionalPrice], now: datetime.datetime
) -> list[ModelPrice]:
    """Return the prices that hold today, at one hour or another."""
    if isinstance(prices, ModelPrice):
        return [prices]
    today = [
        entry
        for entry in prices
        if entry.constraint is None
        or isinstance(entry.constraint, TimeOfDateConstraint)
        or entry.constraint.active(now)
    ]
    # The last that matches wins: what stands before one that holds at every hour never does.
    always = [not isinstance(entry.constraint, TimeOfDateConstraint) for entry in today]
    last = len(always) - 1 - always[::-1].index(True) if any(always) else 0
    return [entry.prices for entry in today[last:]]


def _rates(prices: list[dict[str, Any]], above: int) -> Rates:
    """Return the dearest rate of each kind for a prompt of more than so many tokens."""

    def rate(key: str) -> int | None:
        found = [value for price in prices if (value := _at(price.get(key), above)) is not None]
        return _whole(max(found) * 10**6) if found else None

    return Rates(
        prompt=rate("input_mtok") or 0,
        completion=rate("output_mtok") or 0,  # embeddings have no output
        cached=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok"),
        reasoning=rate("output_reasoning_mtok"),
        above=above,
    )


def _at(rate: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(rate, TieredPrices):
        return rate
    reached = [tier.price for tier in rate.tiers if above >= tier.start]
    return reached[-1] if reached else rate.base


def _dearer(prices: list[dict[str, Any]], key: str, text: str) -> bool:
    return any(
        (_at(price.get(key), 0) or Decimal(0)) > (_at(price.get(text), 0) or Decimal(0))
        for price in prices
    )


def _whole(amount: Decimal) -> int:
    """Take away the float noise, then round up to a whole pico-dollar."""
    # Nine decimals of dollars per million tokens are three of pico-dollars per token.
    return int(round(amount, 3).to_integral_value(rounding=ROUND_CEILING))


def _match(clause: Any) -> Match:
    given: Mapping[str, Any] = {f.name: getattr(clause, f.name) for f in dataclasses.fields(clause)}
    if "or_" in given:
        return Match(any_of=tuple(_match(inner) for inner in given["or_"]))
    if "and_" in given:
        return Match(all_of=tuple(_match(inner) for inner in given["and_"]))
    (name,) = given
    assert name in CLAUSES
    text = given[name]
    pattern = getattr(text, "pattern", text)
    return Match(**{name: pattern if name == "regex" else pattern.lower()})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    main()
