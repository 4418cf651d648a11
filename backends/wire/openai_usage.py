"""``usage`` of OpenAI-like servers: one meaning out of the many names for the same counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.types import HalfUsage, Usage
from backends.wire.values import count, report_of

_WRITERS: Final = "prompt_token_details"
"""Writer's word, and sometimes Mistral's."""

_CACHED: Final = (
    "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens", "num_cached_tokens"
)  # fmt: skip
"""DeepSeek's, Moonshot's and Together's, Databricks', Mistral's."""

_WRITTEN: Final = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
"""OpenRouter's, Alibaba's, LiteLLM's."""


def read_usage(document: Any) -> Usage | HalfUsage | None:
    """Read a ``usage`` object, by chat's names or those of Responses; None if it counts nothing.

    The prompt includes cached tokens on these wires, the output (as a rule) reasoning.
    """
    if not isinstance(document, dict):
        return None
    prompt, completion = (
        count(document.get("prompt_tokens")),
        count(document.get("completion_tokens")),
    )
    if prompt is None and completion is None:
        prompt, completion = (
            count(document.get("input_tokens")),
            count(document.get("output_tokens")),
        )
    given = _details(document, "prompt_tokens_details", "input_tokens_details", _WRITERS)
    made = _details(document, "completion_tokens_details", "output_tokens_details")
    thought = _first(made if "reasoning_tokens" in made else document, "reasoning_tokens")
    if thought and completion is not None:
        total = document.get("total_tokens")
        apart = prompt is not None and total == prompt + completion + thought
        if apart or thought > completion:
            completion += thought  # counted apart, as the total shows, or the count itself
    cached = _first(given, "cached_tokens")
    if cached is None:
        cached = _first(document, *_CACHED)
    written = _first(given, *_WRITTEN)
    if written is None:
        written = _first(document, "cache_creation_input_tokens")
    return report_of(prompt, completion, cached, written, thought)


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        if (found := usage.get(name)) and isinstance(found, dict):
            return found
    return {}


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:  # no generator: this runs for every answer
        if name in usage and (number := count(usage[name])) is not None:
            return number
    return None
