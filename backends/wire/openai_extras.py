"""What only one vendor of the OpenAI-like wires says in an answer, kept by its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backends.wire.details import merge_details

_CHUNK: Final = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "error", "p", "obfuscation"}
    | {"stream_options", "message"}
)
"""Understood elsewhere, or padding."""

_CHOICE: Final = frozenset(
    {"index", "delta", "message", "finish_reason", "native_finish_reason", "logprobs", "usage"}
    | {"text"}
)
_SAID: Final = frozenset(
    {"role", "content", "reasoning", "reasoning_content", "reasoning_details", "refusal", "name"}
    | {"thinking", "reasoning_text", "content_list"}
    | {"thinking_blocks", "content_blocks"}
    | {"tool_calls", "function_call", "images", "annotations", "index", "token_id", "channel"}
)
_COUNTS: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"}
    | {"prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"}
    | {"cache_write_tokens", "cost", "is_byok"}
)
_EMPTY: Final[tuple[Any, ...]] = (None, "", [], {})


def keep_extras(
    extras: dict[str, Any],
    document: Mapping[str, Any],
    choices: Sequence[Mapping[str, Any]],
    usage: Any,
) -> None:
    """Keep what a chunk, or a whole answer, says beyond the wire.

    Fields of the chunk keep their names, where the last one counts. Fields of a choice stand under
    ``choices`` by its index; lists among them add up. Fields of usage stand under ``usage``, and
    the price that the vendor asks, in dollars, is ``cost_usd``.
    """
    extras |= _own(document, _CHUNK)
    for choice in choices:
        own = _own(choice, _CHOICE)
        said = choice.get("delta") or choice.get("message")
        if isinstance(said, dict):
            own |= _own(said, _SAID)
        if own:
            known = _of_choice(extras, choice.get("index") or 0)
            for name, value in own.items():
                if isinstance(value, list) and isinstance(known.get(name), list):
                    merge_details(known[name], value)
                else:
                    known[name] = value
    if isinstance(usage, dict):
        if own := _own(_counts(usage), _COUNTS):
            extras["usage"] = own
        if (cost := _cost(usage)) is not None:
            extras["cost_usd"] = cost


def other_thought(delta: Mapping[str, Any]) -> str:
    """Return reasoning under a name that few give it: ``reasoning_text`` is GitHub Copilot's."""
    found = delta.get("reasoning_text") or delta.get("thinking")
    if isinstance(found, dict):
        found = found.get("text") or found.get("thinking")
    return found if isinstance(found, str) else ""


def keep_filter(extras: dict[str, Any], index: int, results: Any) -> None:
    """Keep what Azure's filters found in the text of a choice; the last one counts."""
    _of_choice(extras, index)["content_filter_results"] = results


def citations(sources: Any) -> list[dict[str, Any]]:
    """Return the sources that Perplexity and xAI list beside an answer, as ``url_citation``s."""
    notes = []
    for source in sources if isinstance(sources, list) else ():
        entry = source if isinstance(source, dict) else {"url": source}
        url, title = entry.get("url"), entry.get("title")
        if isinstance(url, str) and url:
            cited = {"url": url, "title": title if isinstance(title, str) else ""}
            notes.append({"type": "url_citation", "url_citation": cited})
    return notes


def _of_choice(extras: dict[str, Any], index: int) -> dict[str, Any]:
    found: dict[str, Any] = extras.setdefault("choices", {}).setdefault(str(index), {})
    return found


def _own(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in known and v not in _EMPTY}


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return usage without what says nothing: kinds that are understood, and zeros of others."""
    counts = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in _COUNTS and v}
        if value:
            counts[name] = value
    return counts


def _cost(usage: Mapping[str, Any]) -> float | int | None:
    """Read the price of an answer: OpenRouter's ``cost``, or Perplexity's parts with their sum."""
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    return cost if isinstance(cost, int | float) and not isinstance(cost, bool) else None
