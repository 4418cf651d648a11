"""Requests to Google's generateContent say what the canonical form says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backends.errors import RequestRejected
from backends.types import ChatRequest
from backends.wire.details import GOOGLE
from backends.wire.gemini_contents import NO_SIGNATURE
from backends.wire.gemini_request import FIELDS, encode_request
from backends.wire.gemini_stream import GeminiDecoder
from backends.wire.openai_request import CHAT_FIELDS, decode_request
from tests.wire.test_gemini_stream import as_sse, call, chunk, collected, part
from tests.wire.vendor_types import gemini

OLD, NEW = "gemini-2.5-flash", "gemini-3-pro-preview"


def asked(
    *messages: dict[str, Any], model: str = OLD, options: Any = None, **params: Any
) -> dict[str, Any]:
    """Return the body for a client's request, and see that Google's own types take it."""
    given = messages or ({"role": "user", "content": "Hi"},)
    document = {"model": "m", "messages": list(given), **params}
    if options:
        document["provider"] = {"options": {"google": options, "other": {"x": 1}}}
    request = decode_request(msgspec.json.encode(document)).request
    body = encode_request(request, model=model, options_key="google")
    gemini(body)
    return body


def config(**params: Any) -> Any:
    """Return ``generationConfig`` for these parameters."""
    return asked(**params).get("generationConfig")


def parts(*content: dict[str, Any]) -> Any:
    """Return the parts that a user's content becomes."""
    return asked({"role": "user", "content": list(content)})["contents"][0]["parts"]


def tool_call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    """Return one call in the canonical shape."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_turns_become_contents_and_instructions_stand_apart() -> None:
    """System and developer messages are one instruction, wherever they stood."""
    body = asked(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "developer", "content": [{"type": "text", "text": "In German."}]},
        {"role": "user", "content": [{"type": "text", "text": "Again"}]},
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "In German."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello"}]},
            {"role": "user", "parts": [{"text": "Again"}]},
        ],
    }


def test_instructions_alone_are_asked_as_a_users_turn() -> None:
    """Google refuses a request without contents."""
    body = asked({"role": "system", "content": "Say hello."})
    assert body == {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}


def test_what_says_nothing_is_no_part() -> None:
    """An empty text is left out, and so is a turn without parts."""
    body = asked(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "b"},
    )
    assert [content["parts"] for content in body["contents"]] == [
        [{"text": "a"}],
        [{"text": "No."}],
        [{"text": "b"}],
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}},
            {"inlineData": {"mimeType": "image/png", "data": "aW1n"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8,a%20b"}},
            {"inlineData": {"mimeType": "text/plain", "data": "YSBi"}},
        ),
        (
            {"type": "file", "file": {"filename": "a.PDF", "file_data": "cGRm"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "cGRm"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "d2F2", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg?w=1#x"}},
            {"fileData": {"fileUri": "https://a.example/b.jpg?w=1#x", "mimeType": "image/jpeg"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/abc"}},
            {"fileData": {"fileUri": "https://youtu.be/abc"}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_url": "https://c/object"}},
            {"fileData": {"fileUri": "https://c/object", "mimeType": "application/pdf"}},
        ),
    ],
)
def test_media_go_inline_or_by_an_address_that_google_reads(
    content: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The type comes from the URL or the name; where neither tells, it is left to Google."""
    assert parts(content) == [expected]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "image_url", "image_url": {"url": "http://a.example/b.jpg"}},
        {"type": "image_url", "image_url": {"url": "aW1n"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_url": "gs://ours/private"}},
        {"type": "image_url", "image_url": {"url": "data:,x"}},
        {"type": "file", "file": {"file_id": "file-of-another-vendor"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "not base64!"}},
        {"type": "file", "file": {}},
    ],
)
def test_media_that_google_cannot_take_are_refused(content: dict[str, Any]) -> None:
    """By a message that says what it takes; nothing is fetched for it."""
    with pytest.raises(RequestRejected):
        parts(content)


def test_a_system_message_holds_only_text() -> None:
    """An image cannot be an instruction."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}}
    with pytest.raises(RequestRejected):
        asked({"role": "system", "content": [image]})


def test_calls_and_results_go_by_name_and_id() -> None:
    """A result gets the name from the call it answers; one turn answers a turn's calls."""
    body = asked(
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [tool_call("c1", "add", '{"a": 1}'), tool_call("c2", "time", "")],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "12:00"},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sum": 1}'},
        {"role": "user", "content": "And?"},
    )
    assert body["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"name": "add", "id": "c1", "args": {"a": 1}}},
                {"functionCall": {"name": "time", "id": "c2", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c2", "name": "time", "response": {"output": "12:00"}}},
                {"functionResponse": {"id": "c1", "name": "add", "response": {"sum": 1}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And?"}]},
    ]


def test_a_result_may_be_an_error_or_hold_media() -> None:
    """Each has a place of its own."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aW1n"}}
    body = asked(
        {"role": "assistant", "tool_calls": [tool_call("c1", "f", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": "boom", "is_error": True},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "[1]"}, image],
        },
    )
    failed, pictured = (p["functionResponse"] for p in body["contents"][1]["parts"])
    assert failed["response"] == {"error": "boom"}
    assert pictured["response"] == {"output": "[1]"}
    assert pictured["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "aW1n"}}]


def test_a_result_without_its_call_is_refused_unless_it_is_named() -> None:
    """Google knows results by name only."""
    result = {"role": "tool", "tool_call_id": "c9", "content": "x"}
    with pytest.raises(RequestRejected, match="c9"):
        asked(result)
    named = asked({**result, "name": "f"})
    assert named["contents"][0]["parts"][0]["functionResponse"]["name"] == "f"


@pytest.mark.parametrize("arguments", ['{"a"', "[1]", "5"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    """They have no form on this wire."""
    with pytest.raises(RequestRejected, match="'f'"):
        asked({"role": "assistant", "tool_calls": [tool_call("c1", "f", arguments)]})


def encrypted(data: str, index: int, id: str | None = None) -> dict[str, Any]:
    """Return a signature as a client hands it back."""
    detail = {"type": "reasoning.encrypted", "format": GOOGLE, "index": index, "data": data}
    return {**detail, "id": id} if id else detail


def turn(model: str = OLD, **message: Any) -> Any:
    """Return the parts of an assistant's message."""
    return asked({"role": "assistant", **message}, model=model)["contents"][0]["parts"]


def test_signatures_go_back_on_the_parts_they_belong_to() -> None:
    """On the call of their id, and else on the text."""
    said = turn(
        content="Let me see.",
        tool_calls=[tool_call("c1", "f", "{}"), tool_call("c2", "g", "{}")],
        reasoning_details=[encrypted("Yw==", 0, "c2"), encrypted("dA==", 1)],
    )
    assert said == [
        {"text": "Let me see.", "thoughtSignature": "dA=="},
        {"functionCall": {"name": "f", "id": "c1", "args": {}}},
        {"functionCall": {"name": "g", "id": "c2", "args": {}}, "thoughtSignature": "Yw=="},
    ]


def test_a_signature_without_a_text_goes_on_an_empty_one() -> None:
    """As it came: Gemini 3 ends a stream with such a part."""
    assert turn(content=None, reasoning_details=[encrypted("YQ==", 0), encrypted("Yg==", 1)]) == [
        {"text": "", "thoughtSignature": "YQ=="},
        {"text": "", "thoughtSignature": "Yg=="},
    ]


def test_signed_thoughts_go_back_and_others_and_foreign_ones_do_not() -> None:
    """A thought in pieces is put together; what another vendor signed says nothing here."""
    thought = {"type": "reasoning.text", "format": GOOGLE, "index": 0}
    foreign = {"type": "reasoning.text", "format": "anthropic-claude-v1", "signature": "x"}
    said = turn(
        content="ok",
        reasoning="hm",
        reasoning_details=[
            {**thought, "text": "a"},
            {**thought, "text": "b", "signature": "c2ln"},
            {**thought, "index": 1, "text": "unsigned"},
            foreign,
        ],
    )
    assert said == [
        {"text": "ab", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "ok"},
    ]


def test_a_missing_signature_is_said_to_be_missing() -> None:
    """Gemini 3 refuses a turn whose first call has none; older models want none."""
    calls = [tool_call("c1", "f", "{}"), tool_call("c2", "g", "{}")]
    signatures = [p.get("thoughtSignature") for p in turn(NEW, tool_calls=calls)]
    assert signatures == [NO_SIGNATURE, None]
    assert [p.get("thoughtSignature") for p in turn(OLD, tool_calls=calls)] == [None, None]
    signed = turn(NEW, tool_calls=calls, reasoning_details=[encrypted("Yw==", 0, "c1")])
    assert [p.get("thoughtSignature") for p in signed] == ["Yw==", None]


def test_what_the_decoder_gives_the_encoder_takes_back() -> None:
    """A turn that is handed back has the parts it came with, signatures and all."""
    decoder = GeminiDecoder()
    body = as_sse(
        chunk(part({"text": "hm", "thought": True})),
        chunk(part("ok", call("f", "Y2FsbA==", args={"a": [1.5]}), call("g", id="own"))),
        chunk(part({"text": "", "thoughtSignature": "dGV4dA=="}, finish="STOP")),
    )
    [choice] = collected([*decoder.feed(body), *decoder.end()]).choices
    said = turn(
        NEW,
        content=choice.text,
        reasoning=choice.reasoning,
        reasoning_details=choice.details,
        tool_calls=[tool_call(one.id, one.name, one.arguments) for one in choice.calls],
    )
    assert said == [
        {"text": "ok", "thoughtSignature": "dGV4dA=="},
        {
            "functionCall": {"name": "f", "id": choice.calls[0].id, "args": {"a": [1.5]}},
            "thoughtSignature": "Y2FsbA==",
        },
        {"functionCall": {"name": "g", "id": "own", "args": {}}},
    ]


def test_sampling_has_its_own_names() -> None:
    """Each field that this wire claims arrives."""
    request = decode_request(
        msgspec.json.encode(
            {
                "model": "m",
                "messages": [{"role": "user", "content": "Hi"}],
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 40,
                "seed": 7,
                "stop": "END",
                "presence_penalty": 0.5,
                "frequency_penalty": -0.5,
                "logprobs": True,
                "top_logprobs": 3,
                "n": 2,
            }
        )
    ).request
    body = encode_request(msgspec.structs.replace(request, output_bound=64), model=OLD)
    gemini(body)
    assert body["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "seed": 7,
        "stopSequences": ["END"],
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "responseLogprobs": True,
        "logprobs": 3,
        "candidateCount": 2,
        "maxOutputTokens": 64,
    }


def test_what_was_not_asked_is_not_said() -> None:
    """No configuration is made up; the caller's own limit is not the attempt's."""
    assert asked(max_tokens=5, top_k=-1, top_logprobs=0).keys() == {"contents"}
    assert asked(response_format={"type": "text"}).keys() == {"contents"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object"},
            },
        ),
    ],
)
def test_structured_output_is_asked_by_json_schema(wanted: Any, expected: Any) -> None:
    """As it was written: Google reads JSON Schema itself."""
    assert config(response_format=wanted) == expected


def test_image_output_is_asked_by_modality() -> None:
    """With its shape."""
    assert config(
        modalities=["text", "image"], image_config={"aspect_ratio": "16:9", "image_size": "2K"}
    ) == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
    }


@pytest.mark.parametrize(
    ("model", "params", "thinking"),
    [
        (OLD, {"reasoning": {"effort": "low"}}, {"includeThoughts": True, "thinkingBudget": 1024}),
        (OLD, {"reasoning_effort": "high"}, {"includeThoughts": True, "thinkingBudget": 24576}),
        (NEW, {"reasoning_effort": "low"}, {"includeThoughts": True, "thinkingLevel": "LOW"}),
        (NEW, {"reasoning_effort": "max"}, {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        (
            NEW,
            {"reasoning": {"max_tokens": 99, "effort": "low"}},
            {"includeThoughts": True, "thinkingBudget": 99},
        ),
        (
            NEW,
            {"reasoning": {"effort": "medium", "exclude": True}},
            {"includeThoughts": False, "thinkingLevel": "MEDIUM"},
        ),
        (NEW, {"reasoning": {"enabled": True}}, {"includeThoughts": True}),
        (NEW, {"reasoning": {"enabled": False}}, {"thinkingBudget": 0}),
        (OLD, {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
    ],
)
def test_reasoning_is_a_budget_before_gemini_3_and_a_level_from_then_on(
    model: str, params: Any, thinking: Any
) -> None:
    """A budget that the caller names is that budget on either; thoughts are shown unless not."""
    assert asked(model=model, **params)["generationConfig"] == {"thinkingConfig": thinking}


def test_functions_are_declared_by_json_schema() -> None:
    """As it was written, with the choice among them."""
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    tools = [
        {"type": "function", "function": {"name": "f", "description": "F", "parameters": schema}},
        {"type": "function", "function": {"name": "g"}},
    ]
    assert asked(tools=tools)["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "F", "parametersJsonSchema": schema},
                {"name": "g"},
            ]
        }
    ]
    assert "toolConfig" not in asked(tools=tools)
    for choice, calling in {
        "none": {"mode": "NONE"},
        "auto": {"mode": "AUTO"},
        "required": {"mode": "ANY"},
    }.items():
        body = asked(tools=tools, tool_choice=choice)
        assert body["toolConfig"] == {"functionCallingConfig": calling}
    named = {"type": "function", "function": {"name": "g"}}
    assert asked(tools=tools, tool_choice=named)["toolConfig"]["functionCallingConfig"] == {
        "mode": "ANY",
        "allowedFunctionNames": ["g"],
    }


@pytest.mark.parametrize(
    "params",
    [
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "some"},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "x"}},
        {"response_format": {"type": "grammar"}},
        {"modalities": ["audio"]},
        {"image_config": {"colour": "red"}},
    ],
)
def test_what_this_wire_cannot_say_is_refused_by_name(params: dict[str, Any]) -> None:
    """Never dropped in silence."""
    with pytest.raises(RequestRejected) as caught:
        asked(**params)
    assert f"'{next(reversed(params))}" in caught.value.message


def test_vendor_options_add_to_the_body_and_never_replace_what_is_held() -> None:
    """Only some are taken at all; ``test_vendor_options`` has the rule for every wire."""
    options = {
        "safetySettings": [
            {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}
        ],
        "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"},
    }
    body = asked(options=options, temperature=0.5)
    assert body["safetySettings"] == options["safetySettings"]
    assert body["generationConfig"] == {
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "temperature": 0.5,
    }
    with pytest.raises(RequestRejected, match=r"known are generationConfig, labels"):
        asked(options={"automaticFunctionCalling": {}})


def test_no_field_is_claimed_that_this_wire_lacks() -> None:
    """What is claimed is known, and what is left out is what Google has no name for."""
    assert FIELDS < CHAT_FIELDS
    assert {"logit_bias", "min_p", "parallel_tool_calls", "service_tier"} & FIELDS == set()


def test_the_request_is_left_as_it_was() -> None:
    """A second endpoint may be asked with it."""
    details = [encrypted("YQ==", 0), encrypted("Yg==", 1)]
    request = ChatRequest(
        models=("m",),
        messages=(
            {"role": "assistant", "content": "x", "reasoning_details": details},
            {"role": "tool", "tool_call_id": "c", "name": "f", "content": "1"},
            {"role": "tool", "tool_call_id": "d", "name": "f", "content": "2"},
        ),
        params={"tools": [{"type": "function", "function": {"name": "f"}}]},
        required=frozenset(),
        prompt_bytes=1,
    )
    before = msgspec.json.encode(request)
    assert encode_request(request, model=NEW) == encode_request(request, model=NEW)
    assert msgspec.json.encode(request) == before
