"""``usage`` of OpenAI-like servers: one meaning out of the many names for the same counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.types import Usage
from backends.wire.decoder import count


def read_usage(document: Any) -> Usage | None:
    """Read a ``usage`` object; None if it has no two whole token counts."""
    if not isinstance(document, dict):
        return None
    prompt, completion = (
        count(document.get("prompt_tokens")),
        count(document.get("completion_tokens")),
    )
    if prompt is None or completion is None:
        return None
    thought = _detail(document, "completion_tokens_details", "reasoning_tokens")
    if thought and document.get("total_tokens") == prompt + completion + thought:
        completion += thought  # counted apart, as the total shows
    cached = _detail(document, "prompt_tokens_details", "cached_tokens")
    if cached is None:  # DeepSeek, Moonshot and Together, Databricks
        cached = _first(
            document, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"
        )
    written = _detail(document, "prompt_tokens_details", "cache_write_tokens")
    if written is None:
        written = _first(document, "cache_creation_input_tokens")
    return Usage(prompt, completion, cached, written, thought)


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count(details.get(name)) if isinstance(details, dict) else None


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if name in usage:
            return count(usage[name])
    return None
