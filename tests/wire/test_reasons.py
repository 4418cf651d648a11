"""Every word that a vendor's own types list for the end of an answer is understood."""

from __future__ import annotations

from typing import Any, get_args

import anthropic.types.beta.beta_stop_reason
import botocore.session
import cohere.types
import pytest
from google.genai.types import FinishReason

from backends.wire.reasons import reason_of

STOPS = {"STOP", "end_turn", "stop_sequence", "pause_turn", "compaction", "COMPLETE"}
STOPS |= {"STOP_SEQUENCE", "FINISH_REASON_UNSPECIFIED", "stop", "load", "unload", "eos_token"}


def _words(union: Any) -> list[str]:
    return [word for part in get_args(union) for word in get_args(part) or [part]]


def _bedrock() -> list[str]:
    service = botocore.session.get_session().get_service_model("bedrock-runtime")
    return list(service.shape_for("StopReason").enum)


@pytest.mark.parametrize(
    "word",
    [
        *(reason.value for reason in FinishReason),
        *_bedrock(),
        *(w for w in _words(cohere.types.ChatFinishReason) if isinstance(w, str)),
        *(w for w in _words(cohere.types.FinishReason) if isinstance(w, str)),
        *get_args(anthropic.types.beta.beta_stop_reason.BetaStopReason),
        *("stop", "length", "abort", "error", "repetition"),  # vLLM, SGLang
        *("length", "eos_token", "stop_sequence"),  # TGI
        *("stop", "length", "load", "unload"),  # Ollama
        *("stop", "length", "tool_calls", "sensitive", "network_error"),  # Z.ai
        *("stop", "length", "model_length", "error", "tool_calls"),  # Mistral
    ],
)
def test_only_words_for_a_plain_end_are_a_stop(word: str) -> None:
    """A new one in a vendor's types has to be looked at: unknown words count as a stop."""
    assert (reason_of(word) == "stop") == (word in STOPS)


@pytest.mark.parametrize("word", ["overloaded_error", "api_error", "Rate-Limit-Error"])
def test_a_kind_of_error_in_the_reasons_place_is_one(word: str) -> None:
    """Portkey's gateway ends so what broke off behind it."""
    assert reason_of(word) == "error"
    assert reason_of("no_errors") == "stop"
