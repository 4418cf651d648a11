"""Requests to Bedrock's Converse are what AWS's own service model says they must be."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from backends.errors import RequestRejected
from backends.types import ChatRequest, ProviderPreferences
from backends.wire.bedrock_request import encode_request, maker_of
from backends.wire.bedrock_stream import ConverseDecoder
from backends.wire.openai_request import decode_request
from tests.aws import converse, event
from tests.wire import vendor_types

CLAUDE = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
LLAMA = "meta.llama3-2-1b-instruct-v1:0"
PNG = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "hi"}


def encode(
    *messages: dict[str, Any], model: str = CLAUDE, bound: int | None = None, **params: Any
) -> dict[str, Any]:
    """Return the body of a client's request, checked against AWS's service model."""
    asked = {"model": "m", "messages": list(messages) or [USER], **params}
    request = decode_request(json.dumps(asked).encode()).request
    return encoded(request, model=model, bound=bound)


def encoded(
    request: ChatRequest, *, model: str = CLAUDE, bound: int | None = None, **more: Any
) -> dict[str, Any]:
    """Return the body of a request, checked against AWS's service model."""
    request = msgspec.structs.replace(request, output_bound=bound)
    body = encode_request(request, model=model, **more)
    vendor_types.converse(body, model)
    return body


def turns(*messages: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """Return the messages of the body."""
    found: list[dict[str, Any]] = encode(*messages, **more)["messages"]
    return found


def test_system_messages_stand_apart_and_turns_alternate() -> None:
    """Neighbours of one role are joined; blank texts, which Converse refuses, are left out."""
    body = encode(
        {"role": "system", "content": "be brief"},
        USER,
        {"role": "user", "content": [{"type": "text", "text": "there"}]},
        {"role": "assistant", "content": "yes?"},
        {"role": "developer", "content": "and kind"},
        {"role": "assistant", "content": " \n"},
        USER,
    )
    assert body["system"] == [{"text": "be brief"}, {"text": "and kind"}]
    assert body["messages"] == [
        {"role": "user", "content": [{"text": "hi"}, {"text": "there"}]},
        {"role": "assistant", "content": [{"text": "yes?"}]},
        {"role": "user", "content": [{"text": "hi"}]},
    ]
    assert set(body) == {"system", "messages"}


def test_the_bound_and_sampling_go_into_inference_config() -> None:
    """The bound of this attempt, not the caller's own limit."""
    body = encode(bound=50, max_tokens=99, temperature=0.5, top_p=0.9, stop="END")
    assert body["inferenceConfig"] == {
        "maxTokens": 50, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"],
    }  # fmt: skip
    assert "inferenceConfig" not in encode(max_tokens=99)


CALL = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"tz":"CET"}'}}
TOOL = {
    "type": "function",
    "function": {
        "name": "time",
        "description": "tells it",
        "parameters": {"type": "object", "properties": {"tz": {"type": "string"}}},
    },
}


def test_calls_and_their_results_are_blocks() -> None:
    """Results of parallel calls stand in one message; a failed one says so."""
    found = turns(
        USER,
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [CALL, {**CALL, "id": "functions.x:0 ü"}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        {
            "role": "tool",
            "tool_call_id": "functions.x:0 ü",
            "content": [
                {"type": "text", "text": "no"},
                {"type": "image_url", "image_url": {"url": PNG}},
            ],
            "is_error": True,
        },
        USER,
        tools=[TOOL],
    )
    [_, asked, results] = found
    assert asked["role"] == "assistant"
    [said, one, two] = asked["content"]
    assert said == {"text": "let me see"}
    assert one == {"toolUse": {"toolUseId": "c1", "name": "time", "input": {"tz": "CET"}}}
    assert results["role"] == "user"
    first, second, more = results["content"]
    assert first == {"toolResult": {"toolUseId": "c1", "content": [{"text": "12:00"}]}}
    assert second["toolResult"]["status"] == "error"
    assert second["toolResult"]["toolUseId"] == two["toolUse"]["toolUseId"]
    assert [next(iter(block)) for block in second["toolResult"]["content"]] == ["text", "image"]
    assert more == {"text": "hi"}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [("", {}), ("{}", {}), ("[1]", {"arguments": "[1]"}), ("{cut", {"arguments": "{cut"})],
)
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str, given: Any) -> None:
    """Converse takes objects only."""
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    [_, asked] = turns(USER, {"role": "assistant", "content": None, "tool_calls": [call]})
    assert asked["content"][0]["toolUse"]["input"] == given


def test_tools_and_their_choice() -> None:
    """Each choice that Converse has a word for."""
    spec = {
        "name": "time",
        "inputSchema": {"json": TOOL["function"]["parameters"]},
        "description": "tells it",
    }
    assert encode(tools=[TOOL])["toolConfig"] == {"tools": [{"toolSpec": spec}]}
    for choice, wanted in [
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "time"}}, {"tool": {"name": "time"}}),
    ]:
        assert encode(tools=[TOOL], tool_choice=choice)["toolConfig"]["toolChoice"] == wanted
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    [tool] = encode(tools=[strict])["toolConfig"]["tools"]
    assert tool["toolSpec"]["strict"] is True
    assert tool["toolSpec"]["inputSchema"]["json"]["type"] == "object"


def test_no_tool_may_be_chosen_by_not_showing_any() -> None:
    """Converse has no word for it; and with calls in the messages it demands the tools."""
    assert "toolConfig" not in encode(tools=[TOOL], tool_choice="none")
    spoken = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
    with pytest.raises(RequestRejected, match="tool_choice"):
        encode(USER, spoken, result, tools=[TOOL], tool_choice="none")


def test_media_travel_as_bytes() -> None:
    """Of data: URLs, with the formats that Converse names."""
    pdf = {
        "filename": "Q3 report_v2.final.pdf",
        "file_data": "data:application/pdf;base64,JVBERg==",
    }
    text = {"filename": "notes", "file_data": "data:text/plain;charset=utf-8;base64,aGk="}
    [message] = turns(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": pdf},
                {"type": "file", "file": pdf},
                {"type": "file", "file": text},
            ],
        }
    )
    _, image, video, audio, *files = message["content"]
    assert image == {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}}
    assert video == {"video": {"format": "mp4", "source": {"bytes": "AAAA"}}}
    assert audio == {"audio": {"format": "wav", "source": {"bytes": "AAAA"}}}
    assert [(f["document"]["format"], f["document"]["name"]) for f in files] == [
        ("pdf", "Q3 report-v2-final"),
        ("pdf", "Q3 report-v2-final 2"),
        ("txt", "notes"),
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "s3://bucket/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "file", "file": {"file_url": "https://example.com/a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "JVBERg=="}},
    ],
)
def test_what_is_no_data_is_refused(part: dict[str, Any]) -> None:
    """An address would be fetched, in S3 with our own credentials."""
    with pytest.raises(RequestRejected, match=part["type"]):
        encode({"role": "user", "content": [part]})


def test_cache_points_follow_what_they_close() -> None:
    """In system, messages and tools; models that know none get none."""
    control = {"type": "ephemeral"}
    marked = {"type": "text", "text": "long", "cache_control": control}
    given = (
        {"role": "system", "content": [marked]},
        {"role": "user", "content": [marked, {"type": "text", "text": "short"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [marked]},
    )
    point = {"cachePoint": {"type": "default"}}
    body = encode(*given, tools=[{**TOOL, "cache_control": control}])
    assert body["system"] == [{"text": "long"}, point]
    assert body["messages"][0]["content"] == [{"text": "long"}, point, {"text": "short"}]
    assert body["messages"][2]["content"][1] == point
    assert body["toolConfig"]["tools"][1] == point
    other = encode(*given, tools=[{**TOOL, "cache_control": control}], model=LLAMA)
    assert "cachePoint" not in json.dumps(other)


def test_a_dearer_cache_is_refused() -> None:
    """No price covers it; the dialects say so before this wire has to."""
    control = {"type": "ephemeral", "ttl": "1h"}
    part = {"type": "text", "text": "long", "cache_control": control}
    asked = decode_request(json.dumps({"model": "m", "messages": [USER]}).encode()).request
    message = {"role": "user", "content": [part]}
    with pytest.raises(RequestRejected, match="ttl"):
        encoded(msgspec.structs.replace(asked, messages=(message,)))


def test_a_schema_is_structured_output() -> None:
    """As a text; other formats have no word here."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema, "strict": True}}
    form = encode(response_format=wanted)["outputConfig"]["textFormat"]
    found = form["structure"]["jsonSchema"]
    assert (form["type"], found["name"], json.loads(found["schema"])) == (
        "json_schema",
        "A",
        schema,
    )
    assert "outputConfig" not in encode(response_format={"type": "text"})
    with pytest.raises(RequestRejected, match="response_format"):
        encode(response_format={"type": "json_object"})


@pytest.mark.parametrize(
    ("wish", "bound", "thinking"),
    [
        ({"reasoning": {"max_tokens": 2000}}, 9000, {"type": "enabled", "budget_tokens": 2000}),
        ({"reasoning": {"effort": "high"}}, 10000, {"type": "enabled", "budget_tokens": 8000}),
        ({"reasoning": {"enabled": True}}, 10000, {"type": "enabled", "budget_tokens": 5000}),
        ({"reasoning_effort": "minimal"}, 2000, {"type": "enabled", "budget_tokens": 1024}),
        ({"reasoning": {"effort": "none"}}, 2000, {"type": "disabled"}),
        ({"reasoning": {"enabled": False}}, 2000, {"type": "disabled"}),
    ],
)
def test_reasoning_of_anthropics_models(wish: Any, bound: int, thinking: Any) -> None:
    """In their own fields; other models get nothing of it."""
    body = encode(bound=bound, top_k=40, **wish)
    assert body["additionalModelRequestFields"] == {"top_k": 40, "thinking": thinking}
    assert "additionalModelRequestFields" not in encode(bound=bound, model=LLAMA, **wish)


def test_reasoning_that_does_not_fit_the_bound_is_refused() -> None:
    """Nothing is clamped."""
    with pytest.raises(RequestRejected, match="max_tokens"):
        encode(bound=1024, reasoning={"effort": "low"})


def test_newer_models_take_a_level_of_effort() -> None:
    """Where the endpoint says so."""
    asked = {"model": "m", "messages": [USER], "reasoning": {"effort": "high"}}
    request = decode_request(json.dumps(asked).encode()).request
    body = encoded(request, bound=100, adaptive=True)
    wanted = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    assert body["additionalModelRequestFields"] == wanted


def test_signed_and_hidden_reasoning_comes_back_as_it_was() -> None:
    """What a decoder of this wire gave, whole or in the pieces of its stream."""
    hidden = base64.b64encode(b"EtkECkgI+/==").decode()
    deltas = [
        (0, {"text": "hm, "}),
        (0, {"text": "so"}),
        (0, {"signature": "sig=="}),
        (1, {"redactedContent": hidden}),
    ]
    frames = [
        event("contentBlockDelta", {"contentBlockIndex": i, "delta": {"reasoningContent": d}})
        for i, d in deltas
    ]
    events = ConverseDecoder().feed(b"".join([*frames, *converse("42")]))
    pieces = [d for e in events for d in getattr(e, "details", None) or ()]
    assert len(pieces) == 4
    foreign = {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"}
    unsigned = {"type": "reasoning.text", "text": "y", "format": "anthropic-claude-v1", "index": 9}
    earlier = {
        "role": "assistant",
        "content": "42",
        "reasoning_details": [*pieces, foreign, unsigned],
    }
    [_, spoken] = turns(USER, earlier)
    assert spoken["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "hm, so", "signature": "sig=="}}},
        {"reasoningContent": {"redactedContent": hidden}},
        {"text": "42"},
    ]


def test_callers_set_only_what_changes_no_price() -> None:
    """A limit or a tier under `provider.options` would pass by the hold."""
    asked = decode_request(json.dumps({"model": "m", "messages": [USER]}).encode()).request

    def given(**fields: Any) -> ChatRequest:
        options = ProviderPreferences(options={"acme": fields, "other": {"inferenceConfig": {}}})
        return msgspec.structs.replace(asked, provider=options)

    body = encoded(given(requestMetadata={"team": "a"}), options_key="acme")
    assert body["requestMetadata"] == {"team": "a"}
    with pytest.raises(RequestRejected, match=r"provider\.options\.acme\.inferenceConfig"):
        encoded(given(inferenceConfig={"maxTokens": 10**6}), options_key="acme")


def test_tools_of_other_kinds_are_refused() -> None:
    """Converse knows functions alone."""
    with pytest.raises(RequestRejected, match="custom"):
        encode(tools=[{"type": "custom", "custom": {"name": "f"}}])


@pytest.mark.parametrize(
    ("model", "maker"),
    [
        (CLAUDE, "anthropic"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic"),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2", "anthropic"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.amazon.nova-pro-v1:0", "amazon"),
        (LLAMA, ""),
    ],
)
def test_the_maker_of_a_model_stands_in_its_id(model: str, maker: str) -> None:
    """As a word of its own."""
    assert maker_of(model) == maker
