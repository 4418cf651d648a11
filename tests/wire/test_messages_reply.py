"""Answers in Anthropic's shape: blocks in order, counts apart, errors with their types."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.collect import Collector
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    ImageDelta,
    MessageStart,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.messages import MESSAGES
from backends.wire.messages_blocks import unwrap
from backends.wire.messages_reply import (
    ERROR_TYPES,
    MessagesEncoder,
    encode_answer,
    encode_error,
)

HEAD = AnswerHead("gen-1", "acme/chat", "acme", 1_700_000_000)
REQUEST = ChatRequest(
    models=("acme/chat",),
    messages=(),
    params={},
    required=frozenset(),
    prompt_bytes=100,
    content_bytes=42,
)
COST = Cost(1_500, 1_200, 900, 300)
MONEY = {
    "cost": 0.0000015,
    "is_byok": False,
    "cost_details": {
        "upstream_inference_cost": 0.0000012,
        "upstream_inference_prompt_cost": 0.0000009,
        "upstream_inference_completions_cost": 0.0000003,
    },
}
ANTHROPIC = {"format": "anthropic-claude-v1", "index": 0}


def ended(reason: Any = "stop", raw: str = "stop", **extras: Any) -> Finish:
    """Return the end of an answer."""
    return Finish((ChoiceEnd(0, reason, raw),), None, 0, extras or None)


def sent(*deltas: Delta, finish: Finish | None = None) -> list[dict[str, Any]]:
    """Return the events of a streamed answer; their names are checked."""
    encoder = MessagesEncoder(HEAD, REQUEST)
    body = encoder.open() + b"".join(encoder.delta(delta) for delta in deltas)
    return read(body + encoder.finish(finish or ended(), Usage(9, 5), COST))


def read(body: bytes) -> list[dict[str, Any]]:
    """Return the documents of a stream; each event's name is its type."""
    events = body.split(b"\n\n")
    assert events.pop() == b""
    documents = []
    for event in events:
        name, data = event.split(b"\n")
        document = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + document["type"].encode()
        documents.append(document)
    return documents


def message(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the blocks together as a client does; they may not interleave."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                is_open = True
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                add(blocks[-1], event["delta"])
            case "content_block_stop":
                assert is_open
                assert event["index"] == len(blocks) - 1
                is_open = False
            case _:
                assert not is_open
    for block in blocks:
        if "json" in block:
            block["input"] = json.loads(block.pop("json"))
    return blocks


def add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to its block."""
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] += delta["signature"]
        case "input_json_delta":
            block["json"] = block.get("json", "") + delta["partial_json"]
        case "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])


def test_a_message_has_its_five_parts() -> None:
    """Start with an estimate, one block, how it ended, the count and the cost, the stop."""
    first, *middle, last, stop = sent(TextDelta(0, "Grüß "), TextDelta(0, "Gott"))
    assert first == {
        "type": "message_start",
        "message": {
            "id": "gen-1",
            "type": "message",
            "role": "assistant",
            "model": "acme/chat",
            "provider": "acme",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 0},
        },
    }
    assert [event["type"] for event in middle] == [
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
    ]
    assert message(middle) == [{"type": "text", "text": "Grüß Gott"}]
    assert last == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"input_tokens": 9, "output_tokens": 5, **MONEY},
    }
    assert stop == {"type": "message_stop"}


def test_another_kind_of_delta_closes_the_open_block() -> None:
    """Reasoning, its signature, text, refusal, calls, an image: each in a block of its own."""
    signed = {"type": "reasoning.text", **ANTHROPIC}
    found = message(
        sent(
            ReasoningDelta(0, "Let me ", [{**signed, "text": "Let me "}]),
            ReasoningDelta(0, "see.", [{**signed, "text": "see."}]),
            ReasoningDelta(0, "", [{**signed, "signature": "sig"}]),
            ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "enc", **ANTHROPIC}]),
            TextDelta(0, "Hello"),
            ReasoningDelta(0, "more"),
            RefusalDelta(0, "No."),
            ToolCallDelta(0, 0, "c0", "f", ""),
            ToolCallDelta(0, 0, None, None, '{"a":1}'),
            TextDelta(0, "after"),
            ImageDelta(0, "data:image/png;base64,AAAA"),
        )
    )
    assert found == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "enc"},
        {"type": "text", "text": "Hello"},
        {"type": "thinking", "thinking": "more", "signature": ""},
        {"type": "text", "text": "No."},
        {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 1}},
        {"type": "text", "text": "after"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        },
    ]


def test_messages_of_one_answer_are_blocks_of_their_own() -> None:
    """Where an upstream's answer has several in a row."""
    found = message(sent(TextDelta(0, "I look."), MessageStart(0), TextDelta(0, "Found it.")))
    assert [block["text"] for block in found] == ["I look.", "Found it."]


def test_a_signature_ends_its_block() -> None:
    """Two thoughts with signatures are two blocks, also where one has no text."""
    signed = [{"type": "reasoning.text", "signature": "s", **ANTHROPIC}]
    found = message(sent(ReasoningDelta(0, "a", signed), ReasoningDelta(0, "", signed)))
    assert found == [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "thinking", "thinking": "", "signature": "s"},
    ]


def test_reasoning_of_another_vendor_travels_where_clients_hand_it_back() -> None:
    """Its detail lies in a redacted block, unchanged."""
    detail = {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1", "id": 1}
    [thought, hidden] = message(sent(ReasoningDelta(0, "hm", [detail])))
    assert thought == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert hidden["type"] == "redacted_thinking"
    assert unwrap(hidden["data"]) == detail


def test_parallel_calls_that_come_one_after_another_are_streamed() -> None:
    """The next one begins as soon as the arguments before it are complete."""
    encoder = MessagesEncoder(HEAD, REQUEST)
    encoder.open()
    encoder.delta(ToolCallDelta(0, 0, "c0", "f", '{"a":'))
    encoder.delta(ToolCallDelta(0, 0, None, None, "1}"))
    assert b'"id":"c1"' in encoder.delta(ToolCallDelta(0, 1, "c1", "g", ""))


PIECES = [
    [("c0", "f", '{"a'), (None, None, '":'), (None, None, "{}}")],
    [("c1", "g", ""), (None, None, "{}")],
    [("c2", "h", '{"b": "}'), (None, None, '"}')],
]


@given(st.permutations([0, 0, 0, 1, 1, 2, 2]), st.integers(0, 7))
def test_calls_never_interleave(order: list[int], when: int) -> None:
    """In whatever order their pieces come, each is sent whole, and text between them is kept."""
    left = [list(pieces) for pieces in PIECES]
    deltas: list[Delta] = [ToolCallDelta(0, number, *left[number].pop(0)) for number in order]
    deltas.insert(when, TextDelta(0, "text"))
    found = message(sent(*deltas, finish=ended("tool_calls", "tool_calls")))
    inputs = {block["id"]: block["input"] for block in found if block["type"] == "tool_use"}
    assert inputs == {"c0": {"a": {}}, "c1": {}, "c2": {"b": "}"}}
    assert [block["text"] for block in found if block["type"] == "text"] == ["text"]


def test_what_waits_for_a_call_is_sent_before_an_error() -> None:
    """Text and calls before a failure are kept."""
    encoder = MessagesEncoder(HEAD, REQUEST)
    encoder.open()
    encoder.delta(ToolCallDelta(0, 0, "c0", "f", '{"a'))
    assert encoder.delta(TextDelta(0, "text")) == b""
    body = encoder.error({"code": 502, "message": "m"}, None, None)
    assert b'"text":"text"' in body


def test_citations_stand_in_the_block_of_their_text() -> None:
    """Anthropic's own come back as they were, others in its shape; then a new block begins."""
    own = {"type": "char_location", "cited_text": "c"}
    url = {"url": "https://e.com", "title": "T", "content": "c", "start_index": 0, "end_index": 1}
    cited = AnnotationDelta(
        0,
        [{"type": "citation", "citation": own}, {"type": "url_citation", "url_citation": url}],
    )
    found = message(sent(TextDelta(0, "a"), cited, TextDelta(0, "b")))
    assert found == [
        {
            "type": "text",
            "text": "a",
            "citations": [
                own,
                {
                    "type": "web_search_result_location",
                    "url": "https://e.com",
                    "title": "T",
                    "cited_text": "c",
                    "encrypted_index": "",
                },
            ],
        },
        {"type": "text", "text": "b"},
    ]


@pytest.mark.parametrize(
    ("reason", "raw", "shown"),
    [
        ("stop", "stop", "end_turn"),
        ("stop", "end_turn", "end_turn"),
        ("stop", "STOP_SEQUENCE", "stop_sequence"),
        ("length", "length", "max_tokens"),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded"),
        ("tool_calls", "end_turn", "tool_use"),
        ("tool_calls", "tool_calls", "tool_use"),
        ("content_filter", "SAFETY", "refusal"),
    ],
)
def test_a_stop_reason_is_of_this_wire(reason: str, raw: str, shown: str) -> None:
    """Whatever word the upstream had."""
    events = sent(TextDelta(0, "a"), finish=ended(reason, raw))
    assert events[-2]["delta"]["stop_reason"] == shown


def test_what_an_anthropic_upstream_says_of_the_end_comes_back() -> None:
    """The sequence, the details of a refusal, and the rest under the provider's name."""
    finish = ended("stop", "stop_sequence", stop_sequence="END", stop_details={"x": 1}, blocks=[2])
    end = sent(TextDelta(0, "a"), finish=finish)[-2]
    assert end["delta"] == {
        "stop_reason": "stop_sequence",
        "stop_sequence": "END",
        "stop_details": {"x": 1},
    }
    assert end["provider_extras"] == {"acme": {"blocks": [2]}}


def test_cached_tokens_stand_apart() -> None:
    """``input_tokens`` leaves out what was read from the cache and written to it."""
    encoder = MessagesEncoder(HEAD, REQUEST)
    end = read(encoder.finish(ended(), Usage(100, 5, 60, 30, 2), COST))[-2]
    assert end["usage"] == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 2},
        **MONEY,
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [*ERROR_TYPES.items(), (400, "invalid_request_error"), (500, "api_error"), (502, "api_error")],
)
def test_an_error_has_anthropics_type(status: int, kind: str) -> None:
    """By status, with OpenRouter's type beside it; whole and in a stream alike."""
    error = {
        "code": status,
        "message": "m",
        "type": "ours",
        "param": "p",
        "metadata": {"error_type": "t", "limit": "rpm"},
    }
    shown = {
        "type": kind,
        "message": "m",
        "error_type": "t",
        "param": "p",
        "metadata": {"limit": "rpm"},
    }
    assert json.loads(encode_error(error)) == {"type": "error", "error": shown}
    encoder = MessagesEncoder(HEAD, REQUEST)
    [event] = read(encoder.error(error, Usage(9, 5), COST))
    usage = {"input_tokens": 9, "output_tokens": 5, **MONEY}
    assert event == {"type": "error", "error": shown, "usage": usage}


def whole(*deltas: Delta, finish: Finish) -> dict[str, Any]:
    """Return the body of a whole answer."""
    collector = Collector()
    collector.add([*deltas, finish])
    answer = collector.answer()
    body: dict[str, Any] = json.loads(encode_answer(HEAD, REQUEST, answer, Usage(9, 5), COST))
    return body


def test_a_whole_answer_has_the_same_blocks() -> None:
    """Reasoning, text with its citations, calls."""
    signed = {"type": "reasoning.text", "text": "hm", "signature": "s", **ANTHROPIC}
    body = whole(
        ReasoningDelta(0, "hm", [signed]),
        ReasoningDelta(0, "", [{"type": "reasoning.encrypted", "data": "d", **ANTHROPIC}]),
        TextDelta(0, "Hello"),
        AnnotationDelta(0, [{"type": "citation", "citation": {"type": "page_location"}}]),
        ToolCallDelta(0, 0, "c0", "f", '{"a":1}'),
        ToolCallDelta(0, 1, "c1", "g", ""),
        finish=ended("tool_calls", "tool_use", x=1),
    )
    assert body == {
        "id": "gen-1",
        "type": "message",
        "role": "assistant",
        "model": "acme/chat",
        "provider": "acme",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "text", "text": "Hello", "citations": [{"type": "page_location"}]},
            {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c1", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 5, **MONEY},
        "provider_extras": {"acme": {"x": 1}},
    }


def test_details_without_an_index_are_one_block_as_in_a_stream() -> None:
    """Text and signature may stand in entries of their own."""
    made = {"type": "reasoning.text", "format": "anthropic-claude-v1"}
    details = [{**made, "text": "h"}, {**made, "text": "m"}, {**made, "signature": "s"}]
    events = [ReasoningDelta(0, str(d.get("text", "")), [d]) for d in details]
    expected = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert message(sent(*events, finish=ended()))[0] == expected
    collector = Collector()
    collector.add(events)
    body = encode_answer(HEAD, REQUEST, collector.answer(), Usage(1, 1), COST)
    assert json.loads(body)["content"] == [expected]


def test_reasoning_without_details_is_one_block_without_a_signature() -> None:
    """Most vendors sign nothing."""
    body = whole(ReasoningDelta(0, "h"), ReasoningDelta(0, "m"), TextDelta(0, "a"), finish=ended())
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert body["content"] == [thought, {"type": "text", "text": "a"}]


def test_the_dialect_says_all_of_it() -> None:
    """Under its name in metrics and logs."""
    assert MESSAGES.name == "messages"
    assert MESSAGES.encoder is MessagesEncoder
