"""Vendors of OpenAI-like APIs: a file of data each, and no code.

A file is ``NAME.toml``; its keys are the fields of ``Vendor`` and of ``Form``, which it inherits.
Adding a vendor is adding a file. ``docs/add-a-backend.md`` has all keys in a table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from backends.wire.openai_form import Form

API: TypeAlias = Literal["chat", "responses", "completions"]

_MARKS: Final = re.compile(r"[\s._-]+")


class Vendor(Form, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one vendor. Every field has a default that changes nothing."""

    base_url: str = ""
    """Its public address, up to what ``/chat/completions`` follows; empty where each customer,
    or each machine, has its own."""

    key_env: str = ""
    """The variable in which its key usually stands."""

    prices: str = ""
    """Its section in the table of list prices."""

    api: API = "chat"
    """What it speaks where configuration does not say."""

    drop: frozenset[str] = frozenset()
    """Fields and part types that it refuses or ignores."""

    implied_reason: str = ""
    """The reason of answers that it ends without one; empty: that is a cut answer."""

    one_reason: bool = False
    """It ends one choice of a stream with a reason, and means all of them."""

    any_model: bool = False
    """It answers under whatever name its one model is asked for."""

    think_tags: bool = False
    """Its models write reasoning into their text, between ``<think>`` and ``</think>``."""

    path: str = "/chat/completions"
    """Where its chat is, below the address."""

    key_header: str = ""
    """The header of its key; empty: ``Authorization``, as a bearer token."""

    request_id: bool = True
    """Whether it takes our ``X-Request-Id``; some servers refuse one that is no UUID."""

    aliases: frozenset[str] = frozenset()
    """Other names for it."""


def names() -> tuple[str, ...]:
    """Return the vendors' names, without aliases."""
    return tuple(sorted(_rows()))


def vendor(name: str) -> Vendor:
    """Return what is known of a vendor; of the empty name, nothing.

    Letters' case, spaces, dots, dashes and underscores make no difference.

    Raises:
        ValueError: no vendor has the name; the message has the nearest.
    """
    if not name:
        return Vendor()
    rows, known = _rows(), _names()
    found = known.get(_plain(name))
    if found is None:
        near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0)
        hint = f"; the nearest is {known[near[0]]!r}" if near else ""
        raise ValueError(f"'vendor': {name!r} is not known{hint} (or leave it out)")
    return rows[found]


@cache
def _rows() -> Mapping[str, Vendor]:
    rows = {}
    for file in (file for folder in __path__ for file in Path(folder).glob("*.toml")):
        rows[file.stem] = msgspec.toml.decode(file.read_bytes(), type=Vendor)
    return rows


@cache
def _names() -> Mapping[str, str]:
    return {_plain(alias): name for name, row in _rows().items() for alias in (name, *row.aliases)}


def _plain(name: str) -> str:
    return _MARKS.sub("", name).lower()
