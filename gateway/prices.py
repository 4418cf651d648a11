"""The table of list prices: what a vendor's model costs where configuration does not say.

``prices.json`` is written by ``make prices`` and only read here: integers, dated, no network.
A vendor's section is found under the name that the adapter or the vendor's row gives
(``backends.price_list``).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from policies.pricing import Price, Tier

FILE: Final = Path(__file__).with_name("prices.json")


class Match(
    msgspec.Struct, frozen=True, omit_defaults=True, rename={"any_of": "or", "all_of": "and"}
):
    """Which names mean a model; exactly one field is set. Capitals do not count."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    any_of: tuple[Match, ...] = ()
    all_of: tuple[Match, ...] = ()

    def fits(self, name: str) -> bool:
        """Whether ``name``, in small letters, is meant."""
        if self.any_of:
            return any(inner.fits(name) for inner in self.any_of)
        if self.all_of:
            return all(inner.fits(name) for inner in self.all_of)
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        if self.contains is not None:
            return self.contains in name
        if self.starts_with is not None:
            return name.startswith(self.starts_with)
        return name == self.equals if self.ends_with is None else name.endswith(self.ends_with)


class Rates(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pico-dollars per token; ``above`` as in ``policies.pricing.Tier``."""

    prompt: int
    completion: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    above: int = 0


class Entry(Rates, frozen=True, omit_defaults=True, kw_only=True):
    """A model of the table."""

    request: int = 0
    """Pico-dollars for each request."""

    tiers: tuple[Rates, ...] = ()
    context: int | None = None
    """Its window in tokens, where that is known."""

    image: int | None = None
    """The most prompt tokens that one image is, where that is more than usual."""

    unpriced: tuple[str, ...] = ()
    """Parts that cost more than text and have no rate of their own here."""

    unsold: bool = False
    """Its answers cost what no rate here covers: it needs a price in the configuration. It stands
    here because its name would mean another model."""

    match: Match | None = None
    """Other names for it; absent where its own is the only one."""

    @property
    def price(self) -> Price:
        """The same as money is counted here."""
        return Price(
            self.prompt,
            self.completion,
            self.cached,
            self.cache_write,
            self.reasoning,
            request=self.request,
            tiers=tuple(
                Tier(t.above, t.prompt, t.completion, t.cached, t.cache_write, t.reasoning)
                for t in self.tiers
            ),
        )


class Provider(msgspec.Struct, frozen=True, omit_defaults=True):
    """A vendor's section."""

    models: dict[str, Entry]
    fallback: tuple[str, ...] = ()
    """Sections whose models it serves at the same prices."""


class Table(msgspec.Struct, frozen=True):
    """The whole file."""

    source: str
    licence: str
    date: str
    """When it was made (ISO)."""

    providers: dict[str, Provider]


@cache
def table() -> Table:
    """Return the table; read at the first question."""
    return msgspec.json.decode(FILE.read_bytes(), type=Table)


@cache
def known(provider: str) -> tuple[str, ...]:
    """Return the names of a section's models that it prices, in order; none for no section."""
    section = table().providers.get(provider)
    models = section.models if section else {}
    return tuple(name for name, entry in models.items() if not entry.unsold)


def find(provider: str, model: str) -> Entry | None:
    """Return the entry of a vendor's model, by its own name before any pattern.

    None where nothing fits, or where what fits is not priced here.
    """
    entry = _entry(provider, model)
    return None if entry is None or entry.unsold else entry


def _entry(provider: str, model: str) -> Entry | None:
    section = table().providers.get(provider)
    if section is None:
        return None
    name = model.lower()
    if (entry := section.models.get(model) or section.models.get(name)) is not None:
        return entry
    for entry in section.models.values():
        if entry.match is not None and entry.match.fits(name):
            return entry
    found = (_entry(other, model) for other in section.fallback)
    return next((entry for entry in found if entry is not None), None)
