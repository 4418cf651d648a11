"""What our encoders make for upstreams is what the vendors' own SDKs take.

Rich requests of a chat client, narrowed as the gateway narrows them to what an endpoint of the
wire honors, through each encoder. ``vendor_types`` says what the SDKs know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from backends import cohere, ollama, tgi
from backends.types import ChatRequest
from backends.wire import (
    bedrock_invoke,
    bedrock_request,
    cohere_request,
    completions_request,
    embeddings_request,
    gemini_request,
    messages_request,
    messages_upstream,
    ollama_request,
    openai_request,
    responses_request,
    tgi_request,
)
from tests.wire import vendor_types

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
SCHEMA = {
    "type": "object",
    "properties": {"at": {"type": "string"}},
    "required": ["at"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": True},
        "cache_control": {"type": "ephemeral"},
    },
    {"type": "function", "function": {"name": "now"}},
]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}},
    {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}},
]
MEDIA: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
]
DETAILS = [
    {"type": "reasoning.text", "text": "hm", "signature": "c2ln", "index": 0},
    {"type": "reasoning.encrypted", "data": "ZW5j", "index": 1},
]


def thought(form: str) -> dict[str, Any]:
    """Return reasoning that a vendor signed, to be handed back."""
    details = [{**detail, "format": form, "id": "rs_1"} for detail in DETAILS]
    return {"reasoning": "hm", "reasoning_details": details}


def turns(form: str) -> list[dict[str, Any]]:
    """Return a conversation with media, parallel calls, results and reasoning handed back."""
    text = {"type": "text", "text": "See these", "cache_control": {"type": "ephemeral"}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "In German."}]},
        {"role": "user", "content": [text, *MEDIA]},
        {"role": "assistant", "content": "I look.", **thought(form), "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
        {"role": "assistant", "content": "Found at noon."},
        {"role": "user", "content": "Thanks. And now?"},
    ]


SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "top_a": 0.1,
    "min_p": 0.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": -1},
    "logprobs": True,
    "top_logprobs": 2,
    "seed": 7,
    "stop": ["END", "STOP"],
    "n": 2,
    "min_tokens": 1,
    "ignore_eos": True,
    "stop_token_ids": [1],
}
FEATURES = {
    "tools": TOOLS,
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low", "summary": "auto"},
    "verbosity": "low",
    "modalities": ["text"],
    "image_config": {"aspect_ratio": "1:1"},
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "cache_control": {"type": "ephemeral"},
    "service_tier": "auto",
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
}
REQUESTS: dict[str, dict[str, Any]] = {
    "everything": {**SAMPLING, **FEATURES, "response_format": FORMAT},
    "sampling": SAMPLING,
    "any-tool": {"tools": TOOLS, "tool_choice": "required"},
    "own-choice": {"tools": TOOLS, "tool_choice": "auto"},
    "structured": {"response_format": FORMAT},
    "plain-text": {"response_format": {"type": "text"}},
    "budget": {"reasoning": {"max_tokens": 1024}},
    "no-reasoning": {"reasoning": {"enabled": False}, "reasoning_effort": "none"},
    "one-stop": {"stop": "END"},
    "nothing": {},
}


class Wire(NamedTuple):
    """One upstream wire: its encoder, what its adapters honor, and who judges."""

    encode: Callable[..., dict[str, Any]]
    fields: frozenset[str]
    judge: Callable[[dict[str, Any]], None]
    form: str = "anthropic-claude-v1"
    """Whose reasoning is handed back."""

    one_text: bool = False
    """It knows no conversation."""


_CLAUDE = bedrock_request.FIELDS | bedrock_request.ANTHROPIC_FIELDS
WIRES = {
    "chat": Wire(openai_request.encode_request, openai_request.CHAT_FIELDS, vendor_types.chat),
    "responses": Wire(
        responses_request.encode_request,
        responses_request.RESPONSES_FIELDS,
        vendor_types.responses,
        "openai-responses-v1",
    ),
    "completions": Wire(
        completions_request.encode_request,
        completions_request.UPSTREAM_FIELDS,
        vendor_types.completions,
        one_text=True,
    ),
    "messages": Wire(
        messages_request.encode_request, messages_upstream.MESSAGES_FIELDS, vendor_types.messages
    ),
    "messages-adaptive": Wire(
        lambda request, **more: messages_request.encode_request(request, adaptive=True, **more),
        messages_upstream.MESSAGES_FIELDS,
        vendor_types.messages,
    ),
    "invoke": Wire(bedrock_invoke.encode_request, bedrock_invoke.FIELDS, vendor_types.invoke),
    "gemini": Wire(
        gemini_request.encode_request,
        gemini_request.FIELDS,
        vendor_types.gemini,
        "google-gemini-v1",
    ),
    "gemini-2": Wire(
        lambda request, **_: gemini_request.encode_request(request, model="gemini-2"),
        gemini_request.FIELDS,
        vendor_types.gemini,
        "google-gemini-v1",
    ),
    "converse": Wire(bedrock_request.encode_request, bedrock_request.FIELDS, vendor_types.converse),
    "converse-claude": Wire(
        lambda request, **more: bedrock_request.encode_request(request, maker="anthropic", **more),
        _CLAUDE,
        vendor_types.converse,
    ),
    "cohere": Wire(cohere_request.encode_request, cohere.FIELDS, vendor_types.cohere_chat),
    "tgi": Wire(tgi_request.encode_request, tgi.FIELDS, vendor_types.tgi, one_text=True),
    "ollama": Wire(ollama_request.encode_request, ollama.FIELDS, vendor_types.ollama_chat),
}  # fmt: skip


def asked(wire: Wire, params: dict[str, Any]) -> ChatRequest:
    """Return a client's request as an adapter of this wire gets it."""
    messages = turns(wire.form)
    if wire.one_text:
        messages = [messages[0], messages[-1]]
    for message in messages:
        if isinstance(message["content"], list):
            message["content"] = [
                part for part in message["content"] if part["type"] in wire.fields | {"text"}
            ]
    body = {"model": "m", "messages": messages, "max_tokens": 4000, **params}
    request = openai_request.decode_request(msgspec.json.encode(body)).request
    honored = {name: value for name, value in request.params.items() if name in wire.fields}
    stop = request.stop if "stop" in wire.fields else ()
    return msgspec.structs.replace(request, params=honored, stop=stop, output_bound=4000)


@pytest.mark.parametrize("params", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)
def test_the_vendors_sdk_takes_what_we_send(wire: Wire, params: dict[str, Any]) -> None:
    """Every field and every part, as its types have it; and what was asked is said."""
    request = asked(wire, params)
    body = wire.encode(request, model="up")
    wire.judge(body)
    said = msgspec.json.encode(body)
    assert b"4000" in said
    assert b"And now?" in said
    if not wire.one_text:
        assert b"noon" in said
    if "stop" in request.params:
        assert b"END" in said
    if "response_format" in request.params and params["response_format"]["type"] != "text":
        assert b"additionalProperties" in said


def vectors(**fields: Any) -> ChatRequest:
    """Return a request of an embeddings client."""
    body = {"model": "m", "input": ["one", "two"], **fields}
    return embeddings_request.decode_request(msgspec.json.encode(body)).request


@pytest.mark.parametrize(
    ("encode", "judge", "fields"),
    [
        (
            embeddings_request.encode_request,
            vendor_types.embeddings,
            {"dimensions": 2, "encoding_format": "base64"},
        ),
        (
            cohere_request.encode_embed,
            vendor_types.cohere_embed,
            {"dimensions": 256, "input_type": "search_query"},
        ),
        (ollama_request.encode_embed, vendor_types.ollama_embed, {"dimensions": 2}),
    ],
    ids=["embeddings", "cohere", "ollama"],
)
def test_the_vendors_sdk_takes_what_we_send_for_vectors(
    encode: Callable[..., dict[str, Any]],
    judge: Callable[[dict[str, Any]], None],
    fields: dict[str, Any],
) -> None:
    """With all its fields and without any."""
    for given in ({}, fields):
        judge(encode(vectors(**given), model="up"))
