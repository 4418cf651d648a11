"""Custom tools of OpenAI's: free text to a tool, in both of its wires and across them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from backends.collect import Collector
from backends.errors import RequestRejected
from backends.types import ChatRequest, Cost, Delta, Finish, ToolCallDelta, Usage
from backends.wire import (
    bedrock_request,
    cohere_request,
    gemini_request,
    messages_request,
    ollama_request,
    openai_request,
    responses_request,
)
from backends.wire.checks import InvalidRequest
from backends.wire.openai_chat import StreamDecoder
from backends.wire.openai_reply import ChunkEncoder
from backends.wire.responses_reply import encode_answer
from backends.wire.responses_stream import ResponsesDecoder
from policies.charging import content_bytes
from tests.wire.plain import TOOL, chat, feed, sse
from tests.wire.test_messages_reply import message, sent
from tests.wire.test_responses_reply import HEAD, asking, documents, stream

TEXT = '*** "Begin"\n+ü'
GRAMMAR = {"syntax": "lark", "definition": 'start: "a"'}
FLAT = {"type": "custom", "name": "patch", "description": "d"}
FLAT_GRAMMAR = {**FLAT, "format": {"type": "grammar", **GRAMMAR}}
NESTED = {"type": "custom", "custom": {"name": "patch", "description": "d"}}
NESTED_GRAMMAR: dict[str, Any] = {
    "type": "custom",
    "custom": {**NESTED["custom"], "format": {"type": "grammar", "grammar": GRAMMAR}},  # type: ignore[dict-item]
}
CALL = {"id": "call_1", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
CALL_ITEM = {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": TEXT}
EVENTS: list[Delta] = [
    ToolCallDelta(0, 0, "call_1", "patch", "", custom=True),
    ToolCallDelta(0, 0, None, None, TEXT[:5], custom=True),
    ToolCallDelta(0, 0, None, None, TEXT[5:], custom=True),
    ToolCallDelta(0, 0, None, None, "", custom=True),
    ToolCallDelta(0, 1, "call_2", "look", '{"a":1}'),
]
USER = {"role": "user", "content": "hi"}
FUNCTIONS_ONLY = (
    bedrock_request,
    cohere_request,
    gemini_request,
    messages_request,
    ollama_request,
)


def responses(**fields: Any) -> ChatRequest:
    """A request as a client of Responses makes it."""
    body = {"model": "acme/chat", "input": "hi"} | fields
    return responses_request.decode_request(json.dumps(body).encode()).request


@pytest.mark.parametrize(("flat", "nested"), [(FLAT, NESTED), (FLAT_GRAMMAR, NESTED_GRAMMAR)])
def test_a_tool_is_said_in_the_words_of_each_wire(
    flat: dict[str, Any], nested: dict[str, Any]
) -> None:
    """Nested in chat, flat in Responses; so is the choice of one."""
    choice = {"type": "custom", "name": "patch"}
    nested_choice = {"type": "custom", "custom": {"name": "patch"}}
    given = responses(tools=[flat], tool_choice=choice)
    assert given.params["tools"] == [nested]
    assert given.params["tool_choice"] == nested_choice
    body = responses_request.encode_request(
        chat(tools=[nested], tool_choice=nested_choice), model="up"
    )
    assert (body["tools"], body["tool_choice"]) == ([flat], choice)
    own = openai_request.encode_request(chat(tools=[nested]), model="up")
    assert own["tools"] == [nested]


def test_allowed_tools_may_be_custom() -> None:
    """By their names, like functions."""
    function = {"type": "function", "name": "look"}
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [FLAT]}
    assert responses(tools=[FLAT, function], tool_choice=choice).params["tools"] == [NESTED]


def test_a_turn_with_a_call_and_its_output_goes_across() -> None:
    """An output is of the kind of its call."""
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    body = responses_request.encode_request(chat(*turns), model="up")
    assert body["input"] == [CALL_ITEM, output]
    given = responses(input=[CALL_ITEM, output])
    assert list(given.messages) == turns
    ours = {**CALL_ITEM, "id": "ctc_gen-1_0", "status": "completed"}
    body = responses_request.encode_request(responses(input=[ours, output]), model="up")
    assert body["input"] == [CALL_ITEM, output]


@pytest.mark.parametrize(
    "request_",
    [
        chat(tools=[NESTED]),
        responses(tools=[FLAT]),
        chat({"role": "assistant", "tool_calls": [CALL]}),
        chat(tools=[TOOL], tool_choice={"type": "custom", "custom": {"name": "patch"}}),
        responses(input=[CALL_ITEM]),
    ],
)
def test_an_endpoint_must_honor_them_by_name(request_: ChatRequest) -> None:
    """Tools that take no JSON are more than tools."""
    assert request_.required - {"tool_choice"} == {"tools", "tools.custom"}


@pytest.mark.parametrize("call", [CALL, {"id": "call_1", "type": "new", "new": {"name": "patch"}}])
@pytest.mark.parametrize("wire", FUNCTIONS_ONLY, ids=lambda wire: wire.__name__.split(".")[-1])
def test_a_wire_without_them_is_told_of_no_nameless_call(wire: Any, call: Any) -> None:
    """What is no call of a function is refused by name."""
    result = {"role": "tool", "tool_call_id": "call_1", "content": "ok"}
    asked = chat(USER, {"role": "assistant", "content": None, "tool_calls": [call]}, result)
    with pytest.raises(RequestRejected, match=r"'tool_calls'.*'patch'.*functions only"):
        wire.encode_request(asked, model="up")


@pytest.mark.parametrize("wire", [bedrock_request, cohere_request, messages_request])
@pytest.mark.parametrize("kind", ["custom", "allowed_tools"])
def test_a_wire_without_them_is_told_of_no_nameless_choice(wire: Any, kind: str) -> None:
    """Nor is a choice that it cannot say another one."""
    asked = chat(USER, tools=[TOOL], tool_choice={"type": kind, kind: {"name": "patch"}})
    with pytest.raises(RequestRejected, match=f"'tool_choice'.*'{kind}'"):
        wire.encode_request(asked, model="up")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"tools": [{"type": "custom"}]}, "tools[0].custom"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].custom.name"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice.custom"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]},
            "messages[0].tool_calls[0].custom",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], where: str) -> None:
    """Whatever an encoder looks into has been checked."""
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == where


def piece(**fields: Any) -> dict[str, Any]:
    """A chunk of chat with a piece of a call."""
    return {"choices": [{"index": 0, "delta": {"tool_calls": [fields]}}]}


def ends() -> dict[str, Any]:
    """The last chunk of chat."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


CHAT_STREAM = sse(
    piece(index=0, id="call_1", type="custom", custom={"name": "patch", "input": ""}),
    piece(index=0, custom={"input": TEXT}),
    ends(),
) + (b"data: [DONE]\n\n")
CHAT_WHOLE = json.dumps(
    {
        "choices": [
            {"index": 0, "message": {"tool_calls": [CALL]}, "finish_reason": "tool_calls"},
        ]
    }
).encode()
ITEM = {**CALL_ITEM, "id": "ctc_1", "status": "completed"}
DONE = {"id": "r", "status": "completed", "output": [ITEM]}
RESPONSES_STREAM = sse(
    {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "input": ""}},
    {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": TEXT[:4]},
    {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": TEXT[4:]},
    {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": TEXT},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": DONE},
)


@pytest.mark.parametrize(
    ("decoder", "body"),
    [
        (StreamDecoder, CHAT_STREAM),
        (StreamDecoder, CHAT_WHOLE),
        (ResponsesDecoder, RESPONSES_STREAM),
        (ResponsesDecoder, json.dumps(DONE).encode()),
    ],
    ids=["chat", "whole chat", "responses", "whole response"],
)
def test_an_upstreams_call_is_read(decoder: Any, body: bytes) -> None:
    """Named first, its input in pieces, its end told; nothing is said twice."""
    events, failure = feed(decoder(), body)
    assert failure is None
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    assert all(call.custom for call in calls)
    assert [(call.id, call.name) for call in calls if call.name] == [("call_1", "patch")]
    assert "".join(call.arguments for call in calls) == TEXT
    assert calls[-1] == ToolCallDelta(0, 0, None, None, "", custom=True)
    assert events[-1].choices[0].reason == "tool_calls"  # type: ignore[union-attr]


@pytest.mark.parametrize("body", [RESPONSES_STREAM, json.dumps(DONE).encode()])
def test_what_xai_searched_by_itself_is_no_call(body: bytes) -> None:
    """It tells of it as of a call of a custom tool; the client has nothing to answer."""
    events, failure = feed(ResponsesDecoder(), body.replace(b'"patch"', b'"x_keyword_search"'))
    assert failure is None
    assert not any(isinstance(event, ToolCallDelta) for event in events)
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.choices[0].reason == "stop"
    assert finish.extras == {"output_items": [{**ITEM, "name": "x_keyword_search"}]}


def test_a_custom_field_that_says_nothing_makes_no_custom_call() -> None:
    """Some vendors send it empty beside every function."""
    function = {"name": "f", "arguments": "{}"}
    body = sse(piece(index=0, id="c", function=function, custom={"name": "", "input": ""}), ends())
    events, _ = feed(StreamDecoder(), body + b"data: [DONE]\n\n")
    assert ToolCallDelta(0, 0, "c", "f", "{}") in events


def test_a_client_of_chat_gets_it_as_openai_sends_it() -> None:
    """Type and text in every piece."""
    encoder = ChunkEncoder(HEAD, asking())
    bodies = [encoder.delta(event) for event in EVENTS]
    pieces = [
        json.loads(body.removeprefix(b"data: "))["choices"][0]["delta"]["tool_calls"][0]
        for body in bodies
    ]
    assert pieces[0] == {
        "index": 0,
        "id": "call_1",
        "type": "custom",
        "custom": {"name": "patch", "input": ""},
    }
    assert "".join(p["custom"]["input"] for p in pieces[:4]) == TEXT
    assert pieces[4]["type"] == "function"


def test_a_client_of_responses_gets_an_item_of_its_own() -> None:
    """With its events, as OpenAI's types have them; the call after it begins at its end."""
    told = documents(stream(EVENTS, "tool_calls"))
    for document in told:
        TypeAdapter(ResponseStreamEvent).validate_json(json.dumps(document))
    kinds = [document["type"].removeprefix("response.") for document in told]
    assert kinds[2:8] == [
        "output_item.added",
        *["custom_tool_call_input.delta"] * 2,
        "custom_tool_call_input.done",
        "output_item.done",
        "output_item.added",
    ]
    first, second = told[-1]["response"]["output"]
    item = {**CALL_ITEM, "id": first["id"], "status": "completed"}
    assert first == item
    assert told[5]["input"] == TEXT
    assert second["type"] == "function_call"


def test_a_cut_input_is_incomplete() -> None:
    """A client must not run it."""
    output = documents(stream(EVENTS[:2], "length"))[-1]["response"]["output"]
    assert output[0]["status"] == "incomplete"


def cut_chat() -> bytes:
    """Two calls, and the limit in the second."""
    calls = [
        piece(index=i, id=f"c{i}", type="custom", custom={"name": "patch", "input": TEXT[:5]})
        for i in (0, 1)
    ]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    return sse(*calls, end) + b"data: [DONE]\n\n"


def cut_response(**last: str) -> bytes:
    """The same, whole; ``last`` is said of the second."""
    items = [ITEM | {"call_id": "c0", "input": TEXT[:5]}]
    items.append(items[0] | {"id": "ctc_2", "call_id": "c1"} | last)
    why = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    return json.dumps({"id": "r", "output": items} | why).encode()


@pytest.mark.parametrize(
    ("decoder", "body", "statuses"),
    [
        (StreamDecoder, cut_chat(), ["completed", "incomplete"]),
        (ResponsesDecoder, cut_response(status="incomplete"), ["completed", "incomplete"]),
        (ResponsesDecoder, cut_response(), ["completed", "completed"]),
    ],
)
def test_an_input_that_an_upstream_cut_is_incomplete(
    decoder: Any, body: bytes, statuses: list[str]
) -> None:
    """The last call of an answer that hit its limit, unless the upstream says that it is whole."""
    events, failure = feed(decoder(), body)
    assert failure is None
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    streamed = documents(stream(deltas, "length"))[-1]["response"]["output"]
    collector = Collector()
    collector.add(events)
    whole = encode_answer(HEAD, asking(), collector.answer(), Usage(1, 1), Cost(0))
    for output in (streamed, json.loads(whole)["output"]):
        assert [item["status"] for item in output] == statuses
        assert [item["input"] for item in output] == [TEXT[:5]] * 2


def test_a_client_of_messages_gets_an_object_with_the_text() -> None:
    """That dialect has no other; pieces add up to JSON."""
    found = message(sent(*EVENTS))
    assert [block["input"] for block in found] == [{"input": TEXT}, {"a": 1}]


def test_input_counts_as_delivered_like_arguments() -> None:
    """To the byte."""
    names = len("call_1") + len("patch")
    sizes = [content_bytes(e) for e in EVENTS[:4] if isinstance(e, ToolCallDelta)]
    assert sum(sizes) == names + len(TEXT.encode())
