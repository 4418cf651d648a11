"""OpenRouter: every model behind one key, in the words that ours are made of.

What it charged stands in the answer's usage: that is the upstream cost in the books, and goes out
as ``cost_usd`` among the extras.
Source: openrouter.ai/docs, and recorded streams with comments and errors within chunks.
"""

from __future__ import annotations

import dataclasses
from decimal import ROUND_CEILING, Decimal
from typing import Final

import msgspec

from backends.base import BackendConfig
from backends.openai_like import Call, OpenAILike, need_address
from backends.types import ChatRequest, StreamEvent
from backends.vendors import API, vendor
from backends.wire.openai_chat import StreamDecoder

PICO_PER_USD: Final = 10**12
MOST_USD: Final = 10**6
"""A cost above this is no cost."""

KEY_ENV = "OPENROUTER_API_KEY"
"""The usual variable of its key."""

PRICES = "openrouter"
"""Its section in the table of list prices."""


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """What only this kind knows."""

    api: API | None = None
    """What to speak: ``chat`` (if absent), ``responses`` or ``completions``."""


def check(config: BackendConfig) -> None:
    """Check what can be checked without secrets.

    Raises:
        ValueError: there is no model.
    """
    need_address(_addressed(config), "https://openrouter.ai/api/v1")


def build(config: BackendConfig) -> OpenRouter:
    """Build a backend; without ``base_url`` it asks OpenRouter itself."""
    api = msgspec.convert(dict(config.options), Options).api
    return OpenRouter(_addressed(config), vendor("openrouter"), api)


class OpenRouterDecoder(StreamDecoder):
    """Takes what OpenRouter charged for the cost of the answer."""

    def complete(self, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        cost = self.extras.get("cost_usd")
        if self._usage is not None and isinstance(cost, int | float) and 0 <= cost <= MOST_USD:
            # A float's shortest decimal form is what was written.
            exact = Decimal(str(cost)) * PICO_PER_USD
            picodollars = int(exact.to_integral_value(ROUND_CEILING))
            self._usage = msgspec.structs.replace(self._usage, cost_picodollars=picodollars)
        super().complete(events)


class OpenRouter(OpenAILike):
    """One model there."""

    chat_decoder = OpenRouterDecoder

    def call(self, request: ChatRequest) -> Call:
        """See ``OpenAILike``; the price of the answer is asked for by name."""
        call = super().call(request)
        if call.path == self.row.path:
            call.body["usage"] = {"include": True}
        return call


def _addressed(config: BackendConfig) -> BackendConfig:
    return dataclasses.replace(config, base_url=config.base_url or vendor("openrouter").base_url)
