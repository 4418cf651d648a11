"""Responses answers as clients get them: lawful for the SDKs, and the same when read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import openrouter.components as shapes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from backends.collect import Collector
from backends.errors import RateLimited
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    FinishReason,
    ImageDelta,
    MessageStart,
    Native,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire import responses_output
from backends.wire.calls import is_whole
from backends.wire.responses_reply import ResponsesEncoder, encode_answer
from backends.wire.responses_stream import ResponsesDecoder
from tests.wire.test_sse import split

HEAD = AnswerHead("gen-1", "acme/chat", "acme", 1_700_000_000)
COST = Cost(1_500, 1_200, 900, 300)
USAGE = Usage(9, 5, 2, 0, 1)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
ASKED = {
    "model": "acme/chat",
    "input": "hi",
    "tools": [TOOL],
    "temperature": 0.5,
    "metadata": {"a": "b"},
    "text": {"verbosity": "low"},
    "reasoning": {"effort": "low"},
}
SUMMARY = {"type": "reasoning.summary", "format": "openai-responses-v1", "index": 0, "id": "rs_1"}
SECRET = {"type": "reasoning.encrypted", "format": "openai-responses-v1", "index": 1, "id": "rs_1"}
CITED = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
CITATION = {"type": "url_citation", "url_citation": CITED}
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
EVENTS: list[Delta] = [
    ReasoningDelta(0, "Let ", [{**SUMMARY, "summary": "Let "}]),
    ReasoningDelta(0, "me", [{**SUMMARY, "summary": "me"}]),
    ReasoningDelta(0, "", [{**SECRET, "data": "c2VjcmV0"}]),
    MessageStart(0, "commentary"),
    TextDelta(0, "a", {"content": [TOKEN]}),
    TextDelta(0, 'ü\n"b'),
    TextDelta(0, "c"),
    AnnotationDelta(0, [CITATION]),
    TextDelta(0, "d"),
    RefusalDelta(0, "no"),
    ToolCallDelta(0, 0, "call_a", "f", '{"x":'),
    ToolCallDelta(0, 1, "call_b", "f", '{"y"'),
    ToolCallDelta(0, 0, None, None, "1}"),
    ToolCallDelta(0, 1, None, None, ":2}"),
    ToolCallDelta(0, 2, "call_c", "g", "{}"),
    ImageDelta(0, "data:image/png;base64,AAAA"),
]


def asking(body: dict[str, Any] | None = None) -> ChatRequest:
    """A request of this dialect."""
    return ChatRequest(
        models=("acme/chat",),
        messages=({"role": "user", "content": "hi"},),
        params={},
        required=frozenset(),
        prompt_bytes=2,
        native=Native("responses", ASKED if body is None else body),
    )


def finish(reason: FinishReason = "stop") -> Finish:
    """The end of an answer."""
    return Finish((ChoiceEnd(0, reason, reason),), USAGE)


def stream(events: list[Delta], reason: FinishReason = "stop") -> bytes:
    """A whole stream."""
    encoder = ResponsesEncoder(HEAD, asking())
    pieces = [encoder.open(), *(encoder.delta(event) for event in events)]
    return b"".join([*pieces, encoder.finish(finish(reason), USAGE, COST)])


def documents(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, with their numbers in order and their types on both lines."""
    blocks = body.split(b"\n\n")
    assert blocks.pop() == b""
    found = []
    for number, block in enumerate(blocks):
        name, data = block.split(b"\n")
        document = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + document["type"].encode()
        assert document["sequence_number"] == number
        found.append(document)
    return found


def decoded(body: bytes) -> list[StreamEvent]:
    """What our decoder reads in it."""
    decoder = ResponsesDecoder()
    events = decoder.feed(body)
    assert decoder.failure is None, decoder.failure
    return [*events, *decoder.end()]


def collected(events: list[Any]) -> Any:
    """What events add up to."""
    collector = Collector()
    collector.add(events)
    return collector.answer()


def test_every_event_is_one_of_openais_with_every_required_field() -> None:
    """Their own types, validated strictly, and their own accumulator puts the answer together."""
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    events = [adapter.validate_json(json.dumps(d)) for d in documents(stream(EVENTS))]
    state: Any = ResponseStreamState(text_format=omit, input_tools=omit)
    for event in events:
        state.handle_event(event)
    final = events[-1].response
    assert final.output_text == 'aü\n"bcd'
    assert [item.type for item in final.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "function_call",
        "image_generation_call",
    ]
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert sorted(item.id for item in done) == sorted(item.id for item in final.output)
    assert [i.to_dict() for i in final.output] == [
        next(d.to_dict() for d in done if d.id == i.id) for i in final.output
    ]


def test_every_event_is_one_of_openrouters() -> None:
    """Their SDK validates strictly, too."""
    for document in documents(stream(EVENTS)):
        event: Any = TypeAdapter(shapes.StreamEvents).validate_python(document)
        assert not getattr(event, "is_unknown", False), document["type"]


def test_parallel_calls_are_sent_one_item_after_another() -> None:
    """Fragments of a later call wait for the end of the earlier one."""
    told = [
        (d["type"].removeprefix("response."), d.get("output_index"))
        for d in documents(stream(EVENTS[9:14], "tool_calls"))
        if "output_item" in d["type"] or "arguments" in d["type"]
    ]
    places = [place for _, place in told if place is not None]
    assert len(places) == len(told)
    assert places == sorted(places)
    assert [kind for kind, _ in told].count("output_item.done") == 3
    assert told.index(("output_item.done", 0)) < told.index(("output_item.added", 1))


def test_the_last_event_repeats_the_request_and_the_bill() -> None:
    """What was asked, what it cost; unknown counts are 0, because the SDKs insist on a number."""
    body = documents(stream([TextDelta(0, "x")]))[-1]["response"]
    assert body["status"] == "completed"
    assert (body["temperature"], body["metadata"]) == (0.5, {"a": "b"})
    assert body["text"] == {"verbosity": "low", "format": {"type": "text"}}
    assert body["tools"] == [{**TOOL, "description": None, "strict": None}]
    assert (body["store"], body["provider"]) == (False, "acme")
    assert body["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 14,
        "cost": 0.0000015,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": 0.0000012,
            "upstream_inference_input_cost": 0.0000009,
            "upstream_inference_output_cost": 0.0000003,
        },
    }


@pytest.mark.parametrize(
    ("reason", "word"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_cut_answer_is_incomplete_and_says_why(reason: FinishReason, word: str) -> None:
    """Also its last item."""
    last = documents(stream([TextDelta(0, "x")], reason))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": word}
    assert last["response"]["output"][0]["status"] == "incomplete"
    end = decoded(stream([TextDelta(0, "x")], reason))[-1]
    assert isinstance(end, Finish)
    assert end.choices == (ChoiceEnd(0, reason, word),)


def test_a_call_whose_arguments_were_cut_is_incomplete() -> None:
    """A client must not run it; the whole one before it may be run."""
    cut = [ToolCallDelta(0, 0, "call_a", "f", "{}"), ToolCallDelta(0, 1, "call_b", "f", '{"a":"tr')]
    told = documents(stream(list(cut), "length"))
    ended = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    assert ended == told[-1]["response"]["output"]
    assert [item["status"] for item in ended] == ["completed", "incomplete"]


def test_arguments_nested_too_deep_end_no_stream() -> None:
    """They are the model's, and are handed on as text."""
    deep = "[" * 100_000 + "}"
    calls = [ToolCallDelta(0, n, f"call_{n}", "f", deep) for n in range(2)]
    output = documents(stream(list(calls)))[-1]["response"]["output"]
    assert [item["arguments"] for item in output] == [deep, deep]


def test_a_long_call_is_not_read_again_for_every_piece_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether a call is whole is asked for each piece of another, and looked up once."""
    looks: list[int] = []

    def counted(pieces: Sequence[str]) -> bool:
        looks.append(len(pieces))
        return is_whole(pieces)

    monkeypatch.setattr(responses_output, "is_whole", counted)
    first = ToolCallDelta(0, 0, "call_0", "f", '{"a":[{}')
    second = ToolCallDelta(0, 1, "call_1", "f", '{"a":[')
    pieces = [ToolCallDelta(0, 1, None, None, "0,") for _ in range(1_000)]
    told = documents(stream([first, second, *pieces, ToolCallDelta(0, 1, None, None, "0]}")]))
    assert len(told[-1]["response"]["output"]) == 2
    assert looks == [1, 1002]


@pytest.mark.parametrize("opened", [True, False])
def test_a_failure_is_in_the_response_and_beside_it(opened: bool) -> None:
    """With what was said before; also where nothing was."""
    encoder = ResponsesEncoder(HEAD, asking())
    body = b""
    if opened:
        body += encoder.open() + encoder.delta(TextDelta(0, "so far"))
        body += encoder.delta(ToolCallDelta(0, 0, "call_a", "f", '{"x'))
        body += encoder.delta(ToolCallDelta(0, 1, "call_b", "f", '{"y'))
    error = {
        "code": 429,
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "metadata": {"error_type": "rate_limit_exceeded"},
    }
    told = documents(body + encoder.error(error, USAGE, COST))
    assert told[0]["type"] == "response.created"
    last = told[-1]
    assert (last["type"], last["error"]) == ("response.failed", error)
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert last["response"]["usage"]["input_tokens"] == 9
    for document in told:
        TypeAdapter(ResponseStreamEvent).validate_json(json.dumps(document))
        _ = TypeAdapter(shapes.StreamEvents).validate_python(document)
    if opened:
        kinds = [item["type"] for item in last["response"]["output"]]
        assert kinds == ["message", "function_call", "function_call"]
    decoder = ResponsesDecoder()
    events = decoder.feed(body + encoder.error(error, None, None))
    assert isinstance(decoder.failure, RateLimited)
    assert decoder.failure.message == "slow down"
    assert ("so far" in [e.text for e in events if isinstance(e, TextDelta)]) is opened


@given(st.lists(st.integers(0, 10**6), max_size=8))
def test_what_was_written_reads_the_same_however_it_is_split(cuts: list[int]) -> None:
    """Our encoder's bytes, read by our decoder, are the same answer."""
    body = stream(EVENTS, "tool_calls")
    decoder = ResponsesDecoder()
    events = [event for read in split(body, cuts) for event in decoder.feed(read)]
    answer, wanted = collected(events), collected([*EVENTS, finish("tool_calls")])
    answer.extras = None  # the image's item, without its image
    answer.choices[0].raw_reason = wanted.choices[0].raw_reason
    assert answer == wanted
    assert isinstance(events[-1], Finish)
    assert events[-1].usage == USAGE


def test_a_whole_answer_is_the_streams_last_response() -> None:
    """The two cannot drift: the same items by the same way."""
    wanted = documents(stream(EVENTS, "tool_calls"))[-1]["response"]
    answer = collected([*EVENTS, finish("tool_calls")])
    body = encode_answer(HEAD, asking(), answer, USAGE, COST)
    assert json.loads(body) == wanted
    Response.model_validate_json(body, strict=True)
    _ = shapes.OpenResponsesResult.model_validate_json(body)
    assert collected(decoded(body)).choices[0].text == 'aü\n"bcd'


def test_messages_that_follow_each_other_stay_apart_with_their_phases() -> None:
    """A model says what a message is for, and wants it handed back with the message."""
    events: list[Delta] = [
        MessageStart(0, "commentary"),
        TextDelta(0, "I look."),
        MessageStart(0, "final_answer"),
        TextDelta(0, "Found "),
        TextDelta(0, "it."),
        MessageStart(0),
        TextDelta(0, "Bye."),
    ]
    told = documents(stream(events))
    for kind, texts in (("added", ["", "", ""]), ("done", ["I look.", "Found it.", "Bye."])):
        items = [d["item"] for d in told if d["type"] == f"response.output_item.{kind}"]
        assert [item.get("phase") for item in items] == ["commentary", "final_answer", None]
        assert ["".join(p["text"] for p in item["content"]) for item in items] == texts
    assert items == told[-1]["response"]["output"]
    assert decoded(stream(events))[1:-1] == events


def test_signatures_of_other_vendors_travel_with_the_item() -> None:
    """A signed thought, and a signature that belongs to a call: each an item of its own."""
    signed = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    thought = {"type": "reasoning.encrypted", "format": "google-gemini-v1", "index": 1}
    events: list[Delta] = [
        ReasoningDelta(0, "hm", [{**signed, "text": "hm"}]),
        ReasoningDelta(0, "", [{**signed, "signature": "c2ln"}]),
        ReasoningDelta(0, "", [{**thought, "data": "ZGF0YQ", "id": "call_a"}]),
        ReasoningDelta(0, "plain", None),
    ]
    output = documents(stream(events))[-1]["response"]["output"]
    assert [item["format"] for item in output] == [
        "anthropic-claude-v1",
        "google-gemini-v1",
        "unknown",
    ]
    assert output[0]["signature"] == "c2ln"
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert (output[1]["id"], output[1]["encrypted_content"]) == ("call_a", "ZGF0YQ")


def test_a_call_without_arguments_is_an_empty_object() -> None:
    """In its end, and in the response."""
    told = documents(stream([ToolCallDelta(0, 0, "call_a", "f", "")], "tool_calls"))
    assert told[-1]["response"]["output"][0]["arguments"] == "{}"


def test_text_during_a_call_that_is_not_whole_keeps_both() -> None:
    """The rare upstream that interleaves them."""
    events: list[Delta] = [
        ToolCallDelta(0, 0, "call_a", "f", '{"x":'),
        TextDelta(0, "t"),
        TextDelta(0, "u"),
        ToolCallDelta(0, 0, None, None, "1}"),
    ]
    body = stream(events, "tool_calls")
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    state: Any = ResponseStreamState(text_format=omit, input_tools=omit)
    for document in documents(body):
        state.handle_event(adapter.validate_json(json.dumps(document)))
    choice = collected(decoded(body)).choices[0]
    assert (choice.text, choice.calls[0].arguments) == ("tu", '{"x":1}')
