"""The words with which upstreams end an answer, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backends.types import FinishReason

_WORDS: Final[Mapping[FinishReason, str]] = {
    "stop": (
        "stop end_turn eos eos_token stop_sequence completed complete finish pause_turn compaction "
        "no_error"
    ),
    "length": (
        "length max_tokens model_length maximum_tokens max_output_tokens max_output "
        "model_context_window_exceeded incomplete repetition continuation"
    ),
    "tool_calls": "tool_calls tool_use tool_call function_call",
    "content_filter": (
        "content_filter refusal safety content_filtered guardrail_intervened recitation blocklist "
        "prohibited_content spii model_armor image_safety image_prohibited_content "
        "image_recitation language sensitive escalation"
    ),
    "error": (
        "error error_toxic error_limit timeout abort aborted cancelled canceled cancel user_cancel "
        "insufficient_system_resource malformed_function_call malformed_tool_use "
        "malformed_model_output malformed_response unexpected_tool_call too_many_tool_calls "
        "missing_thought_signature other no_image image_other failed pup_limited_disabled"
    ),
}
"""``length`` is what a server cut short on purpose, for whatever cause; ``error`` what broke off.
``pause_turn`` and ``compaction`` ask for another turn, which only a client can begin."""

_REASONS: Final[Mapping[str, FinishReason]] = {
    word: reason for reason, words in _WORDS.items() for word in words.split()
}


def reason_of(raw: str) -> FinishReason:
    """Return the normalized reason; a word that nobody knows counts as a plain stop.

    Kinds of errors do not: some fronts end with one in the reason's place.
    """
    word = raw.lower().replace("-", "_")
    return _REASONS.get(word, "error" if word.endswith("_error") else "stop")
