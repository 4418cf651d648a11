"""``provider.options.<slug>`` adds to a body and replaces nothing in it, on every wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from backends.errors import RequestRejected
from backends.types import ChatRequest
from backends.wire import (
    bedrock_invoke,
    bedrock_request,
    cohere_request,
    completions_request,
    embeddings_request,
    gemini_request,
    messages_request,
    ollama_request,
    openai_form,
    openai_request,
    responses_request,
    tgi_request,
)
from backends.wire.checks import InvalidRequest

Encode = Callable[..., dict[str, Any]]
WIRES: dict[str, Encode] = {
    "chat": openai_request.encode_request,
    "form": lambda request, **more: openai_form.shaped(request, openai_form.Form(), **more),
    "responses": responses_request.encode_request,
    "completions": completions_request.encode_request,
    "messages": messages_request.encode_request,
    "invoke": bedrock_invoke.encode_request,
    "gemini": gemini_request.encode_request,
    "converse": bedrock_request.encode_request,
    "cohere": cohere_request.encode_request,
    "tgi": tgi_request.encode_request,
    "ollama": ollama_request.encode_request,
}
EMBEDDING: dict[str, Encode] = {
    "embeddings": embeddings_request.encode_request,
    "cohere-embed": cohere_request.encode_embed,
    "ollama-embed": ollama_request.encode_embed,
}


def chat(**options: Any) -> ChatRequest:
    """Return a bounded request of a chat client, with options for one provider."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 9,
        "provider": {"options": {"acme": options, "other": {"x": 1}}},
    }
    request = openai_request.decode_request(json.dumps(body).encode()).request
    return msgspec.structs.replace(request, output_bound=9)


def embedding(**options: Any) -> ChatRequest:
    """Return a request for vectors, with options for one provider."""
    body = {"model": "m", "input": ["a"], "provider": {"options": {"acme": options}}}
    return embeddings_request.decode_request(json.dumps(body).encode()).request


ASKED = [
    *(pytest.param(chat, encode, id=name) for name, encode in WIRES.items()),
    *(pytest.param(embedding, encode, id=name) for name, encode in EMBEDDING.items()),
]
TAKEN = {"gemini": "labels", "converse": "requestMetadata"}
"""A field that a wire takes which does not take any."""


@pytest.mark.parametrize(("ask", "encode"), ASKED)
def test_nothing_that_the_gateway_says_can_be_replaced(
    ask: Callable[..., ChatRequest], encode: Encode
) -> None:
    """Each field that a body has: refused at the edge by its name, or where it would stand."""
    said = encode(ask(), model="up", options_key="acme")
    for name in said.get("parameters", said):
        with pytest.raises((InvalidRequest, RequestRejected), match=f"acme.{name}"):
            encode(ask(**{name: "mine"}), model="up", options_key="acme")


@pytest.mark.parametrize(("name", "encode"), [*WIRES.items(), *EMBEDDING.items()])
def test_a_vendors_own_field_travels(name: str, encode: Encode) -> None:
    """To the provider that is named, and to no other."""
    ask = embedding if name in EMBEDDING else chat
    field = TAKEN.get(name, "a_vendors_own")
    request = ask(**{field: {"k": "v"}})
    body = encode(request, model="up", options_key="acme")
    assert body.get("parameters", body)[field] == {"k": "v"}
    plain = encode(ask(), model="up")
    assert encode(request, model="up", options_key="") == plain
    assert encode(request, model="up", options_key="nobody") == plain


def test_objects_are_joined_and_a_limit_within_stays() -> None:
    """What Ollama and Google keep in an object of their own has its bound within it."""
    body = ollama_request.encode_request(
        chat(options={"mirostat": 1}), model="up", options_key="acme"
    )
    assert body["options"] == {"num_predict": 9, "mirostat": 1}
    with pytest.raises(RequestRejected, match=r"options\.acme\.options\.num_ctx"):
        ollama_request.encode_request(
            chat(options={"num_ctx": 1}), model="up", options_key="acme", window=512
        )


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1},
        {"maxTokens": 1},
        {"maxOutputTokens": 1},
        {"max_output_tokens": 1},
        {"max_new_tokens": 1},
        {"max_tokens_to_sample": 1},
        {"num_predict": 1},
        {"options": {"num_predict": 1}},
        {"parameters": {"max_new_tokens": 1}},
        {"generationConfig": {"maxOutputTokens": 1}},
        {"generation_config": [{"max_output_tokens": 1}]},
        {"generationConfig": {"candidateCount": 2}},
        {"generationConfig": {"responseModalities": ["IMAGE"]}},
        {"inferenceConfig": {"maxTokens": 1}},
        {"additionalModelRequestFields": {"max_tokens_to_sample": 1}},
        {"n": 2},
        {"best_of": 2},
        {"num_generations": 2},
        {"model": "dear"},
        {"modelId": "dear"},
        {"stream": False},
        {"messages": []},
        {"contents": []},
        {"input": "x"},
        {"inputs": "x"},
        {"prompt": "x"},
        {"system": "x"},
        {"tools": []},
        {"toolConfig": {}},
        {"service_tier": "priority"},
        {"serviceTier": "priority"},
        {"web_search_options": {}},
        {"search_parameters": {}},
        {"mcp_servers": []},
        {"cachedContent": "x"},
        {"previous_response_id": "x"},
        {"speed": "fast"},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("ask", [chat, embedding])
def test_no_limit_and_no_fee_passes_by_the_hold(
    ask: Callable[..., ChatRequest], options: dict[str, Any]
) -> None:
    """Under no vendor's name, whether or not this request has a bound there; the path is told."""
    with pytest.raises(InvalidRequest) as caught:
        ask(**options)
    assert caught.value.param is not None
    assert caught.value.param.startswith("provider.options.acme.")
