"""What one chunk of Google's generateContent holds, typed, and how its tables are read.

Source: "GenerateContentResponse", ai.google.dev/api/generate-content, and the same page of Vertex
AI, which names a few fields differently (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from backends.types import HalfUsage, Usage
from backends.wire.values import count, report_of


class PartialArg(msgspec.Struct, gc=False, rename="camel"):
    """A piece of one argument; the last field that is there is its value."""

    json_path: str = ""
    string_value: str | UnsetType = UNSET
    number_value: int | float | UnsetType = UNSET
    bool_value: bool | UnsetType = UNSET
    null_value: str | UnsetType | None = UNSET


class FunctionCall(msgspec.Struct, gc=False, rename="camel"):
    """A call for the client to make, whole or a piece of it."""

    id: Any = None
    name: str | None = None
    args: dict[str, Any] | None = None
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class Blob(msgspec.Struct, gc=False, rename="camel"):
    """Data in base64."""

    mime_type: str = ""
    data: str = ""


class Part(msgspec.Struct, gc=False, rename="camel"):
    """One of: text, a call, data; or what a tool of Google's own did (``UNTRANSLATED``)."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    file_data: Any = None
    tool_call: Any = None
    tool_response: Any = None


class Content(msgspec.Struct, gc=False):
    """The parts of one candidate in one chunk."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    """One choice, as far as one chunk goes."""

    index: int | None = None
    content: Content | None = None
    finish_reason: str | int | None = None
    finish_message: Any = None
    logprobs_result: dict[str, Any] | None = None
    avg_logprobs: Any = None
    citation_metadata: Any = None
    grounding_metadata: Any = None
    url_context_metadata: Any = None
    safety_ratings: Any = None


class Feedback(msgspec.Struct, gc=False, rename="camel"):
    """Why a prompt was blocked."""

    block_reason: str | int | None = None
    block_reason_message: str | None = None


class Counts(msgspec.Struct, gc=False, rename="camel"):
    """The counts so far; each report replaces the one before."""

    prompt_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    cached_content_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None


class Chunk(msgspec.Struct, gc=False, rename="camel"):
    """One answer in small, or an error."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Feedback | None = None
    usage_metadata: Counts | None = None
    model_version: str | None = None
    response_id: Any = None
    error: Any = None


VENDORS_OWN: Final = {
    "finish_message": "finishMessage",
    "avg_logprobs": "avgLogprobs",
    "citation_metadata": "citationMetadata",
    "grounding_metadata": "groundingMetadata",
    "url_context_metadata": "urlContextMetadata",
    "safety_ratings": "safetyRatings",
}
"""Fields of a candidate without a place in the canonical answer, by their names on the wire."""

UNTRANSLATED: Final = {
    "inline_data": "inlineData",
    "executable_code": "executableCode",
    "code_execution_result": "codeExecutionResult",
    "file_data": "fileData",
    "tool_call": "toolCall",
    "tool_response": "toolResponse",
}
"""What is kept of parts of the same sort."""

_FINISH: Final = (
    "FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "LANGUAGE",
    "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL", "IMAGE_SAFETY",
    "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS",
)  # fmt: skip
_BLOCK: Final = (
    "BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT",
    "IMAGE_SAFETY",
)  # fmt: skip
"""Enums by number, as they come where a client asked for ``enum-encoding=int``."""


def finish_word(value: str | int | None) -> str | None:
    """Return the word of a finish reason; None for none."""
    return _word(value, _FINISH)


def block_word(value: str | int | None) -> str | None:
    """Return the word of a block reason; None for none."""
    return _word(value, _BLOCK)


def argument(piece: PartialArg) -> Any:
    """Return the value of a piece; ``UNSET`` if it has none."""
    if piece.null_value is not UNSET:
        return None
    if piece.bool_value is not UNSET:
        return piece.bool_value
    return piece.string_value if piece.number_value is UNSET else piece.number_value


def read_usage(counts: Counts, *, silent: bool) -> Usage | HalfUsage | None:
    """Read ``usageMetadata``; None if it counts neither prompt nor output.

    What the tools of Google's own put before the model counts as prompt, thoughts as output: so
    the two add up to ``totalTokenCount``. Zeros are left out on this wire.

    Args:
        counts: what the chunk says.
        silent: nothing has been said by now, so that an absent output count means none.
    """
    prompt = count(counts.prompt_token_count)
    said = count(counts.candidates_token_count)
    thought = count(counts.thoughts_token_count)
    completion: int | None = (said or 0) + (thought or 0)
    if not completion and (prompt is None or (said is None and not silent)):
        completion = None
    if prompt is not None:
        prompt += count(counts.tool_use_prompt_token_count) or 0
    cached = count(counts.cached_content_token_count)
    return report_of(prompt, completion, cached, None, thought)


def read_logprobs(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``logprobsResult`` in OpenAI's shape; None if it tells of no token."""
    chosen, steps = document.get("chosenCandidates"), document.get("topCandidates")
    if not isinstance(chosen, list) or not chosen:
        return None
    tops = steps if isinstance(steps, list) else []
    content = []
    for position, token in enumerate(chosen):
        top = tops[position] if position < len(tops) else None
        others = top.get("candidates") if isinstance(top, dict) else None
        entry = _logprob(token)
        entry["top_logprobs"] = [_logprob(o) for o in others] if isinstance(others, list) else []
        content.append(entry)
    return {"content": content}


def _logprob(token: Any) -> dict[str, Any]:
    text = token.get("token") if isinstance(token, dict) else None
    text = text if isinstance(text, str) else ""
    value = token.get("logProbability") if isinstance(token, dict) else None
    # Zeros are left out on this wire.
    return {"token": text, "logprob": value or 0, "bytes": list(text.encode("utf-8", "replace"))}


def _word(value: str | int | None, words: Sequence[str]) -> str | None:
    if isinstance(value, int):
        value = words[value] if 0 <= value < len(words) else str(value)
    return None if not value or value == words[0] else value
