"""``usage`` of OpenAI-like servers: one meaning out of the many names for the same counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.types import HalfUsage, Usage
from backends.wire.values import count, half


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
    if prompt is None or completion is None:
        return half(prompt, completion)
    given = document.get("prompt_tokens_details") or document.get("input_tokens_details")
    made = document.get("completion_tokens_details") or document.get("output_tokens_details")
    given = given if isinstance(given, dict) else {}
    thought = count(made.get("reasoning_tokens")) if isinstance(made, dict) else None
    total = document.get("total_tokens")
    if thought and (total == prompt + completion + thought or thought > completion):
        completion += thought  # counted apart, as the total shows, or the count itself
    cached = count(given.get("cached_tokens"))
    if cached is None:  # DeepSeek, Moonshot and Together, Databricks
        cached = _first(
            document, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"
        )
    written = count(given.get("cache_write_tokens"))
    if written is None:
        written = _first(document, "cache_creation_input_tokens")
    return Usage(prompt, completion, cached, written, thought)


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if name in usage:
            return count(usage[name])
    return None
