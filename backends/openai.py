"""Any URL that speaks OpenAI's wires: vendors, llama.cpp, another gateway."""

from __future__ import annotations

import dataclasses

import msgspec

from backends.base import BackendConfig
from backends.openai_like import OpenAILike, need_address
from backends.vendors import API, vendor


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    api: API | None = None
    """What to speak: ``chat``, ``responses`` or ``completions``; absent: what the vendor speaks,
    which is chat. Embeddings are asked for beside each of them."""

    vendor: str = ""
    """A row of known quirks; it also gives the address where none is written."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no base URL or no model, or nobody knows the vendor.
    """
    need_address(_addressed(config), "https://api.example.com/v1")


def build(config: BackendConfig) -> OpenAILike:
    """Build a backend for ``base_url`` (up to and including ``/v1``)."""
    options = _options(config)
    return OpenAILike(_addressed(config), vendor(options.vendor), options.api)


def _options(config: BackendConfig) -> Options:
    return msgspec.convert(dict(config.options), Options)


def _addressed(config: BackendConfig) -> BackendConfig:
    row = vendor(_options(config).vendor)
    return dataclasses.replace(config, base_url=config.base_url or row.base_url)
