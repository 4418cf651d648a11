"""Responses requests: read into the canonical shape, and written for upstreams of the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import RequestRejected
from backends.types import ChatRequest
from backends.wire import responses_request
from backends.wire.checks import InvalidRequest
from backends.wire.openai_request import decode_request as decode_chat
from backends.wire.responses_request import decode_request, encode_request
from tests.wire import vendor_types

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
TOOL = {
    "type": "function",
    "name": "look_up",
    "description": "Looks a word up.",
    "parameters": {"type": "object", "properties": {}},
    "strict": True,
}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "I should look it up."}],
    "encrypted_content": "c2VjcmV0",
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "found"}


def asked(**fields: Any) -> ChatRequest:
    """A request, decoded."""
    return decode_request(json.dumps({"model": "m", "input": "hi", **fields}).encode()).request


def sent(request: ChatRequest, **more: Any) -> dict[str, Any]:
    """What an upstream of this wire gets, checked against OpenAI's own types."""
    made = encode_request(msgspec.structs.replace(request, **more), model="up")
    body: dict[str, Any] = json.loads(msgspec.json.encode(made))
    vendor_types.responses(body)
    assert (body["model"], body["stream"], body["store"]) == ("up", True, False)
    return body


def from_chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What an upstream of this wire gets from a client that speaks chat."""
    body = {"model": "m", "messages": list(messages), **fields}
    return sent(decode_chat(json.dumps(body).encode()).request)


def test_a_text_is_a_users_message_and_instructions_lead() -> None:
    """The shortest request; the instructions become a system message."""
    request = asked(instructions="Be brief.")
    assert request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    )
    assert request.required == frozenset()
    assert request.content_bytes == 11


def test_a_whole_turn_becomes_one_assistants_message() -> None:
    """Reasoning, text and calls belong together; items without a type are messages."""
    request = asked(
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Look up 'toll'."}]},
            REASONING,
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
            },
            CALL,
            {**CALL, "call_id": "call_2"},
            OUTPUT,
            {**OUTPUT, "call_id": "call_2", "output": [{"type": "input_text", "text": "x"}]},
        ]
    )
    user, assistant, first, second = request.messages
    assert user["content"] == [{"type": "text", "text": "Look up 'toll'."}]
    assert assistant["content"] == "One moment."
    assert assistant["reasoning"] == "I should look it up."
    common = {"format": "openai-responses-v1", "id": "rs_1"}
    assert assistant["reasoning_details"] == [
        {"type": "reasoning.summary", "summary": "I should look it up.", "index": 0, **common},
        {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1, **common},
    ]
    assert [call["id"] for call in assistant["tool_calls"]] == ["call_1", "call_2"]
    assert first == {"role": "tool", "tool_call_id": "call_1", "content": "found"}
    assert second["content"] == [{"type": "text", "text": "x"}]
    assert "tools" in request.required


def test_images_and_files_are_parts_that_an_endpoint_must_understand() -> None:
    """The bytes of an image are no prompt tokens."""
    url = "data:image/png;base64," + "A" * 1000
    request = asked(
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": url, "detail": "low"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:;base64,AA"},
                    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                ],
            }
        ]
    )
    assert request.required == {"image_url", "file", "input_audio"}
    assert request.images == 1
    assert request.prompt_bytes < 400
    assert request.messages[0]["content"][0]["image_url"] == {"url": url, "detail": "low"}


def test_fields_get_their_canonical_names() -> None:
    """And count as required unless they have their default value."""
    schema = {"type": "object"}
    request = asked(
        max_output_tokens=20,
        temperature=0,
        top_logprobs=2,
        tools=[TOOL],
        tool_choice={"type": "function", "name": "look_up"},
        text={"format": {"type": "json_schema", "name": "s", "schema": schema}, "verbosity": "low"},
        reasoning={"effort": "high", "summary": "auto", "generate_summary": None},
        service_tier="flex",
        prompt_cache_key="k",
    )
    assert request.max_tokens == 20
    function = {name: value for name, value in TOOL.items() if name != "type"}
    assert request.params == {
        "max_tokens": 20,
        "temperature": 0,
        "top_logprobs": 2,
        "logprobs": True,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        "verbosity": "low",
        "reasoning": {"effort": "high", "summary": "auto"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
    }
    assert request.required == frozenset(request.params)


def test_values_that_mean_the_default_count_as_absent() -> None:
    """What SDKs send without being asked leaves no endpoint out."""
    request = asked(
        store=False,
        include=[],
        tools=[],
        tool_choice="auto",
        previous_response_id=None,
        truncation="disabled",
        background=False,
        parallel_tool_calls=True,
        text={"format": {"type": "text"}},
        reasoning={"effort": None, "summary": None},
        temperature=1,
        metadata={"a": "b"},
        user="u",
        safety_identifier="s",
        plugins=[],
        service_tier="auto",
    )
    assert request.required == frozenset()
    assert asked(include=["reasoning.encrypted_content"]).required == frozenset()


def test_what_only_this_wire_honors_is_required_under_its_own_name() -> None:
    """So that an endpoint of another wire is left out of the plan."""
    assert asked(truncation="auto").required == {"responses.truncation"}
    assert asked(prompt_cache_retention="24h").required == {"responses.prompt_cache_retention"}
    assert asked(reasoning={"context": "all_turns"}).required == {"responses.reasoning"}


def test_allowed_tools_leave_out_the_others() -> None:
    """On every wire: the tools that are not allowed are not sent."""
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"name": "look_up"}]}
    request = asked(tools=[TOOL, {**TOOL, "name": "other"}], tool_choice=choice)
    assert [t["function"]["name"] for t in request.params["tools"]] == ["look_up"]
    assert request.params["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"store": True}, "store", "stored"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "stored"),
        ({"conversation": "conv_1"}, "conversation", "stored"),
        ({"background": True}, "background", "background"),
        ({"prompt": {"id": "p"}}, "prompt", "templates"),
        ({"max_tool_calls": 3}, "max_tool_calls", "vendor"),
        ({"plugins": [{"id": "web"}]}, "plugins", "plugins"),
        ({"session_id": "s"}, "session_id", "sticky"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name", "string"),
        (
            {"tools": [{"type": "custom", "name": "x", "format": {}}]},
            "tools[0].format.type",
            "string",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "string"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "web_search"),
        ({"tool_choice": "any"}, "tool_choice", "required"),
        ({"include": ["file_search_call.results"]}, "include[0]", "one of"),
        ({"text": {"tone": "warm"}}, "text.tone", "unknown"),
        ({"reasoning": {"depth": 1}}, "reasoning.depth", "unknown"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "one of"),
        ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"temperature": 3}, "temperature", "from 0 to 2"),
        ({"temprature": 1}, "temprature", "temperature"),
        ({"input": []}, "input", "at least one"),
        ({"input": None}, "input", "required"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "input[0].type", "stored"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "tools of a vendor"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role", "one of"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content", "string or a list"),
        (
            {"input": [{"role": "user", "content": [{"type": "image"}]}]},
            "input[0].content[0].type",
            "input_text",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
            "file stores",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "string"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(
    fields: dict[str, Any], param: str, words: str
) -> None:
    """A 400 that says where and what to write."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        asked(**fields)
    assert caught.value.param == param


def test_the_same_wire_gets_the_clients_own_document() -> None:
    """Unknown keys inside, too; without what is the gateway's own."""
    tool = {**TOOL, "defer_loading": True}
    request = asked(
        input=[
            {"role": "user", "content": "hi", "x": 1},
            REASONING,
            {**CALL, "id": "fc_1"},
            OUTPUT,
        ],
        tools=[tool],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"name": "look_up"}]},
        text={"format": {"type": "json_object"}},
        reasoning={"effort": "low", "context": "all_turns"},
        include=["reasoning.encrypted_content"],
        models=["m", "n"],
        provider={"options": {}},
        user="u",
        metadata={"a": "b"},
        store=False,
        max_output_tokens=20,
    )
    body = encode_request(msgspec.structs.replace(request, output_bound=20), model="up")
    assert body == {
        "model": "up",
        "input": [
            {"role": "user", "content": "hi", "x": 1},
            REASONING,
            {**CALL, "id": "fc_1"},
            OUTPUT,
        ],
        "tools": [tool],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "look_up"}]},
        "text": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "low", "context": "all_turns"},
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 20,
        "store": False,
        "stream": True,
    }


def test_the_same_wire_does_not_get_what_was_narrowed_away() -> None:
    """A field that the endpoint lacks is dropped there, nested ones too."""
    request = asked(
        temperature=0.5,
        tools=[TOOL],
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "low"},
    )
    body = encode_request(msgspec.structs.replace(request, params={"verbosity": "low"}), model="up")
    assert body == {
        "model": "up",
        "input": "hi",
        "text": {"verbosity": "low"},
        "store": False,
        "stream": True,
    }


def test_the_same_wire_does_not_get_what_our_answers_added() -> None:
    """Ids that we made, and reasoning of other vendors, mean nothing there."""
    foreign = {**REASONING, "format": "anthropic-claude-v1", "signature": "s"}
    ours = {**CALL, "id": "fc_gen-1_0", "status": "completed"}
    own = {**REASONING, "format": "openai-responses-v1", "status": "completed"}
    request = asked(input=[foreign, own, ours, OUTPUT])
    assert encode_request(request, model="up")["input"] == [REASONING, CALL, OUTPUT]
    signed = request.messages[0]["reasoning_details"]
    assert [d["format"] for d in signed] == ["anthropic-claude-v1"] * 3 + [
        "openai-responses-v1"
    ] * 2


def test_reasoning_of_a_chat_client_goes_back_unchanged() -> None:
    """Item by item, in order, with its id, also where the client kept the pieces of a stream."""
    common = {"format": "openai-responses-v1", "id": "rs_1"}
    details = [
        {"type": "reasoning.summary", "summary": "I should ", "index": 0, **common},
        {"type": "reasoning.summary", "summary": "look it up.", "index": 0, **common},
        {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1, **common},
        {"type": "reasoning.text", "text": "x", "signature": "s", "format": "anthropic-claude-v1"},
    ]
    function = {"name": "look_up", "arguments": "{}"}
    body = from_chat(
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_details": details,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "found"},
    )
    assert body["input"] == [
        {"type": "message", "role": "user", "content": "hi"},
        REASONING,
        {"type": "message", "role": "assistant", "content": "One moment."},
        CALL,
        OUTPUT,
    ]
    assert body["include"] == ["reasoning.encrypted_content"]


def test_a_chat_request_is_said_in_this_wires_words() -> None:
    """Flat tools, ``text``, ``reasoning``; encrypted reasoning is asked for only with reasoning."""
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    image = {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}
    body = from_chat(
        {"role": "user", "content": [{"type": "text", "text": "hi"}, image]},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        response_format={"type": "json_schema", "json_schema": schema},
        reasoning_effort="low",
        verbosity="high",
        top_logprobs=2,
        logprobs=True,
    )
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "hi"},
        {"type": "input_image", "image_url": "https://a.example/a.png", "detail": "auto"},
    ]
    assert body["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    ]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["text"] == {"format": {"type": "json_schema", **schema}, "verbosity": "high"}
    assert body["reasoning"] == {"effort": "low"}
    assert body["include"] == ["reasoning.encrypted_content", "message.output_text.logprobs"]
    assert "include" not in from_chat({"role": "user", "content": "hi"})


@pytest.mark.parametrize(
    ("reasoning", "effort"),
    [
        ({"enabled": False}, "none"),
        ({"enabled": True}, "medium"),
        ({"max_tokens": 2000}, "medium"),
        ({"effort": "high", "max_tokens": 2000}, "high"),
    ],
)
def test_how_hard_to_think_is_a_word(reasoning: dict[str, Any], effort: str) -> None:
    """This wire has no budget of tokens."""
    body = from_chat({"role": "user", "content": "hi"}, reasoning=reasoning)
    assert body["reasoning"] == {"effort": effort}


def test_a_part_that_the_wire_cannot_say_is_refused() -> None:
    """Clearly, and before anything is sent."""
    video = {"type": "video_url", "video_url": {"url": "https://a.example/v"}}
    with pytest.raises(RequestRejected, match="video_url"):
        from_chat({"role": "user", "content": [video]})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["function", "x", "auto"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "name", "format", "effort", "tools", "mode", "id", "text"]),
            inner,
        )
    ),
    max_leaves=6,
)
_ITEM = st.builds(
    lambda kind, role, rest: {**rest, "type": kind, "role": role},
    st.sampled_from(["message", "reasoning", "function_call", "function_call_output", None]),
    st.sampled_from(["user", "assistant", "developer", None]),
    st.dictionaries(
        st.sampled_from(["content", "summary", "output", "call_id", "name", "arguments", "id"]),
        _JSON,
    ),
)


@given(
    st.fixed_dictionaries(
        {"model": st.just("m"), "input": st.lists(_ITEM, max_size=3) | _JSON},
        optional={
            name: _JSON
            for name in sorted(responses_request._KNOWN)
            if name not in ("input", "model")
        },
    )
)
def test_whatever_is_asked_is_understood_or_refused(document: dict[str, Any]) -> None:
    """Nothing else than a 400; what is understood can be written for both kinds of upstream."""
    try:
        request = decode_request(json.dumps(document).encode()).request
    except InvalidRequest:
        return
    for given_ in (request, msgspec.structs.replace(request, native=None)):
        msgspec.json.encode(encode_request(given_, model="m"))


def recorded() -> list[Any]:
    """The requests of every recording of the wire."""
    folders = sorted(ROOT.glob("*-responses/*"))
    if not folders:
        reason = "the recordings are not beside this checkout (../shared/recordings)"
        return [pytest.param({}, marks=pytest.mark.skip(reason))]
    found = [
        (f, json.loads((f / "request.json").read_text()))
        for f in folders
        if (f / "request.json").exists()
    ]
    return [
        pytest.param(r["body"], id=f.name) for f, r in found if r["body"] and "input" in r["body"]
    ]


REFUSED = {"moderation", "provider", "prompt"}
"""What these recordings hold of fields that are not offered; and every tool but functions."""


@pytest.mark.parametrize("body", recorded())
def test_a_recorded_request_loses_nothing(body: dict[str, Any]) -> None:
    """Decoded and encoded for its own wire it is what it was, or it is refused by name."""
    tools = {tool["type"] for tool in body.get("tools", ())}
    if REFUSED & body.keys() or tools - {"function"}:
        with pytest.raises(InvalidRequest):
            decode_request(json.dumps(body).encode())
        return
    request = decode_request(json.dumps(body).encode()).request
    again = encode_request(
        msgspec.structs.replace(request, output_bound=request.max_tokens), model=body["model"]
    )
    given = {**body, "stream": True, "store": False}
    assert again == {
        **given,
        "input": without_nulls(given["input"]),
    }
    kinds = {item.get("type") for item in body["input"] if isinstance(item, dict)}
    assert any(m.get("tool_calls") for m in request.messages) == ("function_call" in kinds)
    translated = encode_request(msgspec.structs.replace(request, native=None), model="m")
    assert sum(item["type"] == "function_call_output" for item in translated["input"]) == sum(
        isinstance(item, dict) and item.get("type") == "function_call_output"
        for item in body["input"]
    )
    secrets = {i.get("encrypted_content") for i in body["input"] if isinstance(i, dict)} - {None}
    assert secrets == {i.get("encrypted_content") for i in translated["input"]} - {None}


def without_nulls(items: Any) -> Any:
    """A null says nothing."""
    if isinstance(items, str):
        return items
    return [{k: v for k, v in item.items() if v is not None} for item in items]


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": {"ttl": "1h"}},
        {"tools": [{"type": "function", "name": "f", "cache_control": {"ttl": "1h"}}]},
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "a", "cache_control": {"ttl": "1h"}}
                    ],
                }
            ]
        },
    ],
)
def test_a_longer_cache_time_is_refused_wherever_it_stands(fields: dict[str, Any]) -> None:
    """It costs more than other writing to a cache, and has no price here."""
    with pytest.raises(InvalidRequest, match="ttl"):
        decode_request(msgspec.json.encode({"model": "m", "input": "a", **fields}))
