"""Cohere's v2 wire: requests out, answers in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.errors import ProtocolError, RequestRejected, StreamTruncated, UpstreamFailed
from backends.types import (
    AnnotationDelta,
    ChoiceEnd,
    Finish,
    ReasoningDelta,
    ResponseStart,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.cohere_request import encode_embed, encode_request
from backends.wire.cohere_stream import CohereDecoder, CohereEmbedDecoder
from tests.wire.plain import CALL, TOOL, chat, feed, sse
from tests.wire.test_sse import split


def event(type: str, index: int = 0, **message: Any) -> dict[str, Any]:
    """Return an event of a stream."""
    return {"type": type, "index": index, "delta": {"message": message}}


def call(index: int, kind: str, **call: Any) -> dict[str, Any]:
    """Return an event of a tool call."""
    return event(f"tool-call-{kind}", index, tool_calls=call)


def end(reason: str = "COMPLETE", **usage: Any) -> dict[str, Any]:
    """Return the last event."""
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}


START = {"id": "m-1", "type": "message-start", "delta": {"message": {"content": []}}}
CITATION = {
    "start": 0,
    "end": 2,
    "text": "Hé",
    "sources": [
        {"type": "document", "id": "d:0", "document": {"title": "T", "url": "https://x.example"}}
    ],
}
STREAM = sse(
    START,
    event("content-start", content={"type": "thinking", "thinking": ""}),
    event("content-delta", content={"thinking": "hm"}),
    event("content-end"),
    event("content-delta", 1, content={"text": "Hé"}),
    event("citation-start", citations=CITATION),
    end(
        billed_units={"input_tokens": 2, "output_tokens": 3},
        tokens={"input_tokens": 20, "output_tokens": 9, "reasoning_tokens": 4},
        cached_tokens=8,
    ),
)
URL = {
    "type": "url_citation",
    "url_citation": {
        "url": "https://x.example",
        "title": "T",
        "content": "Hé",
        "start_index": 0,
        "end_index": 2,
    },
}


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_thoughts_text_citations_and_counts_come_however_the_bytes_are_split(
    cuts: list[int],
) -> None:
    """``tokens`` is what the model read and wrote; what is billed there goes out as an extra."""
    events, failure = feed(CohereDecoder(), *split(STREAM + b"data: [DONE]\n\n", cuts))
    assert failure is None
    extras = {
        "citations": [CITATION],
        "billed_units": {"input_tokens": 2, "output_tokens": 3},
    }
    assert events == [
        ResponseStart("m-1", None),
        ReasoningDelta(0, "hm"),
        TextDelta(0, "Hé"),
        AnnotationDelta(0, [URL]),
        Finish((ChoiceEnd(0, "stop", "COMPLETE"),), Usage(20, 9, 8, None, 4), 0, extras),
    ]


def test_calls_come_side_by_side_after_their_plan() -> None:
    """Without arguments a call has an empty object."""
    body = sse(
        START,
        event("tool-plan-delta", tool_plan="I will"),
        call(0, "start", id="a", type="function", function={"name": "look", "arguments": ""}),
        call(0, "delta", function={"arguments": '{"at"'}),
        call(0, "delta", function={"arguments": ":1}"}),
        {"type": "tool-call-end", "index": 0},
        call(1, "start", id="b", type="function", function={"name": "now", "arguments": ""}),
        {"type": "tool-call-end", "index": 1},
        end("TOOL_CALL"),
    )
    events, failure = feed(CohereDecoder(), body)
    assert failure is None
    assert events[1:] == [
        ReasoningDelta(0, "I will"),
        ToolCallDelta(0, 0, "a", "look", ""),
        ToolCallDelta(0, 0, None, None, '{"at"'),
        ToolCallDelta(0, 0, None, None, ":1}"),
        ToolCallDelta(0, 1, "b", "now", ""),
        ToolCallDelta(0, 1, None, None, "{}"),
        Finish((ChoiceEnd(0, "tool_calls", "TOOL_CALL"),), None),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length")],
)
def test_the_vendors_words_are_understood(word: str, reason: Any) -> None:
    """And kept beside the reason."""
    events, _ = feed(
        CohereDecoder(), sse(START, event("content-delta", content={"text": "a"}), end(word))
    )
    assert isinstance(events[-1], Finish)
    assert events[-1].choices == (ChoiceEnd(0, reason, word),)


def test_an_answer_that_failed_keeps_what_was_said() -> None:
    """Its error stands in the last event."""
    last = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "overheated"}}
    events, failure = feed(
        CohereDecoder(), sse(START, event("content-delta", content={"text": "a"}), last)
    )
    assert TextDelta(0, "a") in events
    assert isinstance(failure, UpstreamFailed)
    assert failure.message == "overheated"


def test_a_stream_cut_anywhere_before_its_end_is_truncated() -> None:
    """It never looks complete."""
    last = STREAM.rfind(b"data: ")
    for at in range(0, last, 7):
        _, failure = feed(CohereDecoder(), STREAM[:at])
        assert isinstance(failure, StreamTruncated)


def test_a_whole_answer_says_the_same() -> None:
    """With lists where a stream has pieces."""
    body = (
        b'{"id": "m-1", "message": {"role": "assistant", "tool_plan": "p", "content": '
        b'[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}], '
        b'"tool_calls": [{"id": "a", "function": {"name": "now", "arguments": "{}"}}]}, '
        b'"finish_reason": "TOOL_CALL"}'
    )
    events, failure = feed(CohereDecoder(), body)
    assert failure is None
    assert events[1:-1] == [
        ReasoningDelta(0, "p"),
        ReasoningDelta(0, "hm"),
        TextDelta(0, "hi"),
        ToolCallDelta(0, 0, "a", "now", "{}"),
    ]


def test_a_message_where_an_answer_should_be_is_an_error() -> None:
    """As the vendor writes its errors."""
    _, failure = feed(CohereDecoder(), b'{"id": "x", "message": "invalid api token"}')
    assert failure is not None
    assert failure.message == "invalid api token"


def test_the_request_says_it_in_the_vendors_words() -> None:
    """Every field that the adapter claims has its place."""
    request = chat(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        seed=1,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        stop="END",
        tools=[TOOL],
        tool_choice="required",
        response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        reasoning={"max_tokens": 100},
        provider={"options": {"cohere": {"safety_mode": "OFF"}}},
    )
    body = encode_request(replace(request, output_bound=9), model="m", options_key="cohere")
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        "stream": True,
        "temperature": 0.5,
        "p": 0.9,
        "k": 5,
        "seed": 1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "max_tokens": 9,
        "stop_sequences": ["END"],
        "tools": [TOOL],
        "tool_choice": "REQUIRED",
        "thinking": {"type": "enabled", "token_budget": 100},
        "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
        "safety_mode": "OFF",
    }


def test_earlier_turns_are_handed_back_as_they_came() -> None:
    """A plan before calls, thoughts before a text."""
    request = chat(
        {"role": "assistant", "content": None, "reasoning": "I will", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
        {"role": "assistant", "content": "so", "reasoning": "hm"},
    )
    planned, result, thought = encode_request(request, model="m")["messages"]
    assert planned == {"role": "assistant", "tool_calls": [CALL], "tool_plan": "I will"}
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "seen"}
    assert thought["content"] == [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "so"},
    ]


def test_one_function_at_will_is_the_only_one_there() -> None:
    """The wire has no word for it; one that is not there is refused."""
    other = {"type": "function", "function": {"name": "other", "strict": True}}
    wish = {"type": "function", "function": {"name": "other"}}
    body = encode_request(chat(tools=[TOOL, other], tool_choice=wish), model="m")
    assert [tool["function"] for tool in body["tools"]] == [
        {"name": "other", "parameters": {"type": "object", "properties": {}}}
    ]
    assert (body["tool_choice"], body["strict_tools"]) == ("REQUIRED", True)
    with pytest.raises(RequestRejected, match="tool_choice"):
        encode_request(chat(tools=[TOOL], tool_choice=wish), model="m")


def test_to_call_none_is_said_where_there_are_tools() -> None:
    """Without tools there is nothing to say it of."""
    body = encode_request(chat(tools=[TOOL], tool_choice="none"), model="m")
    assert (body["tools"], body["tool_choice"]) == ([TOOL], "NONE")
    assert "tool_choice" not in encode_request(chat(tool_choice="none"), model="m")


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({}, None),
        ({"reasoning": {"enabled": False}}, {"type": "disabled"}),
        ({"reasoning_effort": "none"}, {"type": "disabled"}),
        ({"reasoning": {"effort": "high"}}, {"type": "enabled"}),
        ({"reasoning": {"exclude": True}}, None),
    ],
)
def test_whether_to_think_is_said_and_effort_is_not(fields: dict[str, Any], thinking: Any) -> None:
    """The wire knows on, off, and a budget."""
    assert encode_request(chat(**fields), model="m").get("thinking") == thinking


def test_what_the_wire_cannot_say_is_refused() -> None:
    """By name, before anything is sent."""
    part = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    with pytest.raises(RequestRejected, match="input_audio"):
        encode_request(chat({"role": "user", "content": [part]}), model="m")
    with pytest.raises(RequestRejected, match="grammar"):
        encode_request(chat(response_format={"type": "grammar"}), model="m")
    with pytest.raises(RequestRejected, match="96"):
        encode_embed(replace(chat(), inputs=("a",) * 97), model="m")


def test_an_embed_answer_of_another_shape_is_none() -> None:
    """Numbers are needed."""
    _, failure = feed(CohereEmbedDecoder(1), b'{"embeddings": {"int8": [[1]]}}')
    assert isinstance(failure, ProtocolError)
