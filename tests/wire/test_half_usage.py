"""A count of the prompt alone, or of the answer alone, is half a report: never 0 for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backends.types import Finish, HalfUsage, Usage
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.cohere_stream import CohereDecoder
from backends.wire.completions_stream import CompletionsDecoder
from backends.wire.decoder import AnswerDecoder
from backends.wire.embeddings_stream import EmbeddingsDecoder
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.messages_stream import MessagesDecoder
from backends.wire.ollama_stream import OllamaDecoder, OllamaEmbedDecoder
from backends.wire.openai_chat import StreamDecoder
from backends.wire.responses_stream import ResponsesDecoder
from backends.wire.tgi_stream import TGIDecoder

TEXT = [{"type": "text", "text": "hi"}]
SPOKEN = [{"type": "output_text", "text": "hi", "annotations": []}]
Answer = Callable[[dict[str, int]], dict[str, Any]]
WIRES: dict[str, tuple[Callable[[], AnswerDecoder], tuple[str, str], Answer]] = {
    "chat": (
        StreamDecoder,
        ("prompt_tokens", "completion_tokens"),
        lambda counts: {
            "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": counts,
        },
    ),
    "completions": (
        CompletionsDecoder,
        ("prompt_tokens", "completion_tokens"),
        lambda counts: {
            "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}],
            "usage": counts,
        },
    ),
    "responses": (
        ResponsesDecoder,
        ("input_tokens", "output_tokens"),
        lambda counts: {
            "id": "r",
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "role": "assistant", "content": SPOKEN}],
            "usage": counts,
        },
    ),
    "messages": (
        MessagesDecoder,
        ("input_tokens", "output_tokens"),
        lambda counts: {
            "type": "message",
            "content": TEXT,
            "stop_reason": "end_turn",
            "usage": counts,
        },
    ),
    "gemini": (
        GeminiDecoder,
        ("promptTokenCount", "candidatesTokenCount"),
        lambda counts: {
            "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": counts,
        },
    ),
    "converse": (
        ConverseDecoder,
        ("inputTokens", "outputTokens"),
        lambda counts: {
            "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
            "stopReason": "end_turn",
            "usage": counts,
        },
    ),
    "cohere": (
        CohereDecoder,
        ("input_tokens", "output_tokens"),
        lambda counts: {
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": TEXT},
            "usage": {"tokens": counts},
        },
    ),
    "tgi": (
        TGIDecoder,
        ("input_length", "generated_tokens"),
        lambda counts: {
            "generated_text": "hi",
            "details": {"finish_reason": "length", **counts},
        },
    ),
    "ollama": (
        OllamaDecoder,
        ("prompt_eval_count", "eval_count"),
        lambda counts: {
            "message": {"role": "assistant", "content": "hi"},
            "done": True,
            "done_reason": "stop",
            **counts,
        },
    ),
}


def usage_of(decoder: AnswerDecoder, document: dict[str, Any]) -> Usage | HalfUsage | None:
    """Return what a whole answer says of its usage."""
    events = [*decoder.feed(json.dumps(document).encode()), *decoder.end()]
    assert decoder.failure is None
    last = events[-1]
    assert isinstance(last, Finish)
    return last.usage


@pytest.mark.parametrize(("decoder", "names", "answer"), WIRES.values(), ids=WIRES)
def test_what_was_counted_is_kept_and_the_rest_is_unknown(
    decoder: Callable[[], AnswerDecoder], names: tuple[str, str], answer: Answer
) -> None:
    """A zero in the place of what nobody counted would be a free part of an answer."""
    prompt, completion = names
    assert usage_of(decoder(), answer({prompt: 3, completion: 2})) == Usage(3, 2)
    assert usage_of(decoder(), answer({prompt: 3})) == HalfUsage(3, None)
    assert usage_of(decoder(), answer({completion: 2})) == HalfUsage(None, 2)
    assert usage_of(decoder(), answer({})) is None


@pytest.mark.parametrize(
    ("wire", "counts", "half"),
    [
        (
            "gemini",
            {"candidatesTokenCount": 23, "thoughtsTokenCount": 67},
            HalfUsage(None, 90, reasoning_tokens=67),
        ),
        (
            "gemini",
            {"promptTokenCount": 9, "cachedContentTokenCount": 7, "toolUsePromptTokenCount": 2},
            HalfUsage(11, None, cached_tokens=7),
        ),
        (
            "converse",
            {"inputTokens": 10, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 1},
            HalfUsage(18, None, cached_tokens=7, cache_write_tokens=1),
        ),
        (
            "messages",
            {"input_tokens": 10, "cache_read_input_tokens": 7},
            HalfUsage(17, None, cached_tokens=7),
        ),
        (
            "chat",
            {"completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 67}},
            HalfUsage(None, 90, reasoning_tokens=67),
        ),
    ],
)
def test_half_a_report_keeps_its_parts(wire: str, counts: dict[str, Any], half: HalfUsage) -> None:
    """Hidden reasoning explains a count of which little was shown; what was cached is cheaper."""
    decoder, _, answer = WIRES[wire]
    assert usage_of(decoder(), answer(counts)) == half


@pytest.mark.parametrize(("decoder", "names", "answer"), WIRES.values(), ids=WIRES)
def test_a_kind_that_is_not_counted_is_none(
    decoder: Callable[[], AnswerDecoder], names: tuple[str, str], answer: Answer
) -> None:
    """Cached, written and reasoning tokens, too."""
    found = usage_of(decoder(), answer(dict.fromkeys(names, 1)))
    assert isinstance(found, Usage)
    kinds = (found.cached_tokens, found.cache_write_tokens, found.reasoning_tokens)
    assert kinds == (None, None, None)


@pytest.mark.parametrize(
    ("decoder", "document", "usage"),
    [
        (
            EmbeddingsDecoder(1),
            {"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 3}},
            Usage(3, 0),
        ),
        (EmbeddingsDecoder(1), {"data": [{"index": 0, "embedding": [0.5]}]}, None),
        (OllamaEmbedDecoder(1), {"embeddings": [[0.5]], "prompt_eval_count": 3}, Usage(3, 0)),
        (OllamaEmbedDecoder(1), {"embeddings": [[0.5]]}, None),
    ],
)
def test_vectors_have_no_completion(
    decoder: AnswerDecoder, document: dict[str, Any], usage: Usage | None
) -> None:
    """There the 0 is known; a prompt that nobody counted is not."""
    assert usage_of(decoder, document) == usage
