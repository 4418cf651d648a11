"""Answers as clients get them: the shape that their SDKs insist on, money without a float."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from backends.collect import ChatAnswer, Choice, ToolCall
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.openai_reply import DONE, ChunkEncoder, encode_answer, usage_body, usd
from backends.wire.sse import COMMENT

HEAD = AnswerHead("gen-1", 'acme/"chat"', "acme", 1_700_000_000)
REQUEST = ChatRequest(
    models=("acme/chat",), messages=(), params={}, required=frozenset(), prompt_bytes=0
)
ENCODER = ChunkEncoder(HEAD, REQUEST)
TOLD, PRICE = Usage(9, 5), Cost(5)
TOLD_BODY = json.loads(msgspec.json.encode(usage_body(TOLD, PRICE)))
DELTAS = [
    TextDelta(0, "a"),
    TextDelta(1, "ü\n", {"content": []}),
    ReasoningDelta(0, "hm"),
    ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "x"}]),
    RefusalDelta(0, "no"),
    ToolCallDelta(0, 0, "c", "f", ""),
    ToolCallDelta(0, 1, None, None, "{}"),
    ImageDelta(0, "data:image/png;base64,AA=="),
    AnnotationDelta(0, [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]),
]


def chunks(body: bytes) -> list[Any]:
    """Return the documents of a stream; the end marker as None."""
    events = body.split(b"\n\n")
    assert events.pop() == b""
    assert all(event.startswith(b"data: ") and event.count(b"\n") == 0 for event in events)
    return [None if event == b"data: [DONE]" else json.loads(event[6:]) for event in events]


@given(st.integers(-(10**20), 10**20))
@example(0)
@example(1)
@example(-1)
@example(10**9)
@example(1_500_000_000)
def test_money_is_written_exactly(nanodollars: int) -> None:
    """A JSON number of at most nine decimals, equal to the integer it came from."""
    text = bytes(usd(nanodollars)).decode()
    assert Decimal(text) * 10**9 == nanodollars
    assert "e" not in text.lower()
    assert len(text.partition(".")[2]) <= 9
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal) == Decimal(text)


def test_usage_carries_all_parts_of_the_cost() -> None:
    """An official SDK rejects a part of `cost_details`; unknown kinds are absent, not zero."""
    body = usage_body(Usage(9, 5), Cost(1_500, 1_200, 900, 300))
    text = json.dumps(body, default=lambda raw: json.loads(bytes(raw)))
    assert json.loads(text) == {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "cost": 0.0000015,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": 0.0000012,
            "upstream_inference_prompt_cost": 0.0000009,
            "upstream_inference_completions_cost": 0.0000003,
        },
    }


def test_known_kinds_of_tokens_are_shown_even_at_zero() -> None:
    """Zero that was reported is a fact."""
    body = usage_body(Usage(9, 5, 0, None, 0), Cost(0))
    assert body["prompt_tokens_details"] == {"cached_tokens": 0}
    assert body["completion_tokens_details"] == {"reasoning_tokens": 0}


@pytest.mark.parametrize("delta", DELTAS)
def test_every_delta_has_what_strict_clients_want(delta: Any) -> None:
    """Role and content on each, provider, and a finish reason that is null."""
    [document] = chunks(ENCODER.delta(delta))
    assert document["object"] == "chat.completion.chunk"
    assert (document["id"], document["model"]) == ("gen-1", 'acme/"chat"')
    assert (document["provider"], document["created"]) == ("acme", 1_700_000_000)
    assert "system_fingerprint" not in document
    [choice] = document["choices"]
    assert choice["index"] == delta.index
    assert choice["delta"]["role"] == "assistant"
    assert "content" in choice["delta"]
    assert choice["finish_reason"] is choice["native_finish_reason"] is None
    assert "logprobs" in choice


def test_one_closing_chunk_carries_finish_and_usage_then_the_end() -> None:
    """Two such chunks make clients read `stopstop`; none makes them lose usage."""
    ends = (ChoiceEnd(0, "stop", "end_turn"), ChoiceEnd(1, "length", "MAX"))
    last, done = chunks(ENCODER.finish(Finish(ends, None, extras={"a": 1}), TOLD, PRICE))
    assert done is None
    assert last["usage"] == TOLD_BODY
    assert last["provider_extras"] == {"acme": {"a": 1}}
    assert [
        (c["index"], c["finish_reason"], c["native_finish_reason"]) for c in last["choices"]
    ] == [
        (0, "stop", "end_turn"),
        (1, "length", "MAX"),
    ]
    assert all(choice["delta"]["content"] == "" for choice in last["choices"])


@pytest.mark.parametrize("charged", [False, True])
def test_an_error_ends_the_stream_without_the_end_marker(charged: bool) -> None:
    """In one chunk with a choice, or strict clients hide the message."""
    told = (TOLD, PRICE) if charged else (None, None)
    [document] = chunks(ENCODER.error({"code": 502, "message": "broke"}, *told))
    assert document["error"] == {"code": 502, "message": "broke"}
    assert document["choices"][0]["finish_reason"] == "error"
    assert document.get("usage") == (TOLD_BODY if charged else None)


def test_a_whole_answer_has_what_strict_clients_want() -> None:
    """`system_fingerprint` present though null, an index on each choice, text null beside calls."""
    answer = ChatAnswer(
        [
            Choice(0, text="hi", reasoning="hm", raw_reason="stop", logprobs=[{"token": "hi"}]),
            Choice(1, calls=[ToolCall("c", "f", "{}")], reason="tool_calls", details=[{"a": 1}]),
            Choice(2, refusal="no"),
        ]
    )
    body = json.loads(encode_answer(HEAD, REQUEST, answer, TOLD, PRICE))
    assert body["object"] == "chat.completion"
    assert body["system_fingerprint"] is None
    assert body["usage"] == TOLD_BODY
    said, called, refused = body["choices"]
    assert [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert said["message"] == {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "reasoning": "hm",
    }
    assert said["logprobs"] == {"content": [{"token": "hi"}]}
    assert called["message"]["content"] is None
    assert called["message"]["reasoning_details"] == [{"a": 1}]
    assert called["message"]["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert (called["finish_reason"], called["logprobs"]) == ("tool_calls", None)
    assert refused["message"]["refusal"] == "no"


def test_a_comment_is_an_event_that_parsers_skip() -> None:
    """It starts with a colon and ends its own event."""
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")
    assert DONE == b"data: [DONE]\n\n"


def test_openais_sdk_puts_lists_together_that_come_in_pieces() -> None:
    """Its streaming helper gives up where the second piece of a list has no ``index``."""
    encoder, state = ChunkEncoder(HEAD, REQUEST), ChatCompletionStreamState()
    thought = {"type": "reasoning.text", "text": "hm"}
    pieces: list[Delta] = [
        ReasoningDelta(0, "hm", [{**thought, "index": 0}]),
        ReasoningDelta(0, "hm", [{**thought, "index": 0}]),
        ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "c2VjcmV0"}]),
        *(ImageDelta(0, f"https://a.example/{name}.png") for name in "ab"),
        *(AnnotationDelta(0, [{"type": "url_citation", "n": n}]) for n in range(3)),
    ]
    for piece in pieces:
        document = json.loads(encoder.delta(piece).removeprefix(b"data: "))
        state.handle_chunk(ChatCompletionChunk.model_validate(document))
    message = state.current_completion_snapshot.choices[0].message.to_dict()
    assert [entry["n"] for entry in message["annotations"]] == [0, 1, 2]  # type: ignore[attr-defined]
    assert len(message["images"]) == 2  # type: ignore[arg-type]
    assert message["reasoning_details"] == [
        {**thought, "text": "hmhm", "index": 0},
        {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1},
    ]
