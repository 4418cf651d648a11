"""Whatever a client puts wherever it likes: understood, or refused by name, on every wire."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from backends.wire.dialect import Decoded
from tests.matrix import dialects

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
FUNCTION = {"name": "look", "description": "d", "parameters": SCHEMA, "strict": True}
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning": "hm",
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "text": "hm",
                    "signature": "c2ln",
                    "format": form,
                    "index": index,
                    "id": "call_1",
                }
                for index, form in enumerate(
                    ("anthropic-claude-v1", "google-gemini-v1", "openai-responses-v1")
                )
            ],
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "x"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "found", "is_error": True},
        {"role": "user", "content": "And?"},
    ],
    "tools": [{"type": "function", "function": FUNCTION, "cache_control": {"type": "ephemeral"}}],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "reasoning": {"effort": "low", "max_tokens": 1024, "enabled": True, "summary": "auto"},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
    },
    "stop": ["END"],
    "temperature": 0.5,
    "image_config": {"aspect_ratio": "1:1"},
    "provider": {"options": {"acme": {"generationConfig": {"mediaResolution": "LOW"}}}},
}
RESPONSES = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See"},
                {"type": "input_image", "image_url": PNG, "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "content": [{"type": "reasoning_text", "text": "hm"}],
            "encrypted_content": "ZW5j",
            "format": "openai-responses-v1",
            "signature": "c2ln",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "found"},
    ],
    "tools": [{"type": "function", "cache_control": {"type": "ephemeral"}, **FUNCTION}],
    "tool_choice": {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "look"}],
    },
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "store": False,
}
MESSAGES = {
    "model": "m",
    "max_tokens": 4096,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                },
                {
                    "type": "document",
                    "title": "a.pdf",
                    "source": {"type": "url", "url": "https://a.example/a.pdf"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZW5j"},
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "found"}],
                    "is_error": False,
                }
            ],
        },
    ],
    "tools": [{"name": "look", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
}
COMPLETION = {
    "model": "m",
    "prompt": ["one", [1, 2]],
    "suffix": "s",
    "logit_bias": {"5": -1},
    "stop": ["END"],
    "logprobs": 2,
    "n": 2,
}
EMBEDDING = {"model": "m", "input": ["one", "two"], "dimensions": 2, "input_type": "query"}

Decode = Callable[[bytes], Decoded]
DIALECTS: Mapping[str, tuple[Decode, dict[str, Any]]] = {
    "chat": (openai_request.decode_request, CHAT),
    "responses": (responses_request.decode_request, RESPONSES),
    "messages": (messages_request.decode_request, MESSAGES),
    "completions": (completions_request.decode_request, COMPLETION),
    "embeddings": (embeddings_request.decode_request, EMBEDDING),
}
BODIES = [
    pytest.param(DIALECTS[dialect.name][0], body, id=f"{dialect.name}-{number}")
    for dialect in (*dialects.SPEAKING, dialects.EMBEDDINGS)
    for number, body in enumerate(
        (
            DIALECTS[dialect.name][1],
            *(dialect.ask("m", scenario) for scenario in dialect.scenarios),
        )
    )
]
_FORMS = (
    openai_form.Form(
        output_field="max_tokens",
        reasoning="enable_thinking",
        reasoning_field="thinking",
        call_id_chars=9,
        developer=False,
        cache_control=False,
    ),
    openai_form.Form(reasoning="thinking", reasoning_field="reasoning_content"),
)
_CHAT_WIRES: tuple[Callable[..., dict[str, Any]], ...] = (
    openai_request.encode_request,
    *(lambda request, form=form, **more: openai_form.shaped(request, form, **more)
      for form in _FORMS),
    responses_request.encode_request,
    completions_request.encode_request,
    messages_request.encode_request,
    lambda request, **more: messages_request.encode_request(request, adaptive=True, **more),
    gemini_request.encode_request,
    lambda request, **more: gemini_request.encode_request(request, **more | {"model": "gemini-2"}),
    bedrock_request.encode_request,
    lambda request, **more: bedrock_request.encode_request(request, maker="anthropic", **more),
    bedrock_invoke.encode_request,
    cohere_request.encode_request,
    tgi_request.encode_request,
    ollama_request.encode_request,
)  # fmt: skip
_EMBED_WIRES: tuple[Callable[..., dict[str, Any]], ...] = (
    embeddings_request.encode_request,
    cohere_request.encode_embed,
    ollama_request.encode_embed,
)

words = st.sampled_from(
    [
        "",
        "x",
        "function",
        "tool",
        "text",
        "assistant",
        "user",
        "json_schema",
        "none",
        "{}",
        "[",
        PNG,
    ]
)
leaves = st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False) | words
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything within a document."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy in which one place has another value."""
    document = copy.deepcopy(document)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def encode_everywhere(request: ChatRequest) -> None:
    """Ask every wire for its body; only a refusal by name may come out."""
    embeds = request.operation == "embeddings"
    one_text = len(request.inputs) <= 1 and all(isinstance(text, str) for text in request.inputs)
    for encode in _EMBED_WIRES if embeds else _CHAT_WIRES:
        if not (embeds or one_text or encode is completions_request.encode_request):
            continue  # no such endpoint is asked: it lacks ``completions.prompt``
        for bound in (None, 2000):
            asked = msgspec.structs.replace(request, output_bound=bound)
            try:
                body = encode(asked, model="up", options_key="acme")
            except RequestRejected:
                continue
            msgspec.json.encode(body)


@pytest.mark.parametrize(("decode", "body"), BODIES)
def test_the_bodies_themselves_are_understood(decode: Decode, body: dict[str, Any]) -> None:
    """Otherwise what is put into them would prove nothing."""
    encode_everywhere(decode(msgspec.json.encode(body)).request)


@pytest.mark.parametrize(("decode", "body"), BODIES)
@given(data=st.data())
def test_any_value_at_any_place_is_understood_or_refused_by_name(
    decode: Decode, body: dict[str, Any], data: st.DataObject
) -> None:
    """No value of a wrong type reaches an encoder: never a 500."""
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(places(body))))
        body = put(body, path, data.draw(values))
    try:
        request = decode(msgspec.json.encode(body)).request
    except InvalidRequest:
        return
    encode_everywhere(request)


@pytest.mark.parametrize(("decode", "body"), BODIES)
def test_every_place_takes_its_own_type_or_says_what_is_wrong(
    decode: Decode, body: dict[str, Any]
) -> None:
    """The same for one value of each kind at every single place."""
    for path in places(body):
        for value in (None, True, -5, 1.5, "x", "", [], [5], {}, {"x": 5}, [{}], [None]):
            try:
                request = decode(msgspec.json.encode(put(body, path, value))).request
            except InvalidRequest:
                continue
            encode_everywhere(request)


_TURN, _USER = ("messages", 2), ("messages", 1, "content")
_CALLED = (*_TURN, "tool_calls", 0)


@pytest.mark.parametrize(
    ("dialect", "path", "value"),
    [
        ("chat", (*_CALLED, "function"), "look"),
        ("chat", (*_CALLED, "function", "name"), 5),
        ("chat", (*_CALLED, "function", "arguments"), {}),
        ("chat", (*_CALLED, "id"), []),
        ("chat", (*_TURN, "reasoning_details", 0, "format"), []),
        ("chat", (*_TURN, "reasoning_details", 0), "x"),
        ("chat", (*_TURN, "reasoning"), {}),
        ("chat", (*_USER, 1, "image_url", "url"), 5),
        ("chat", (*_USER, 2, "file", "file_data"), {}),
        ("chat", (*_USER, 3, "input_audio", "format"), None),
        ("chat", ("tool_choice", "function"), "look"),
        ("chat", ("tools", 0, "function", "parameters"), "x"),
        ("chat", ("reasoning", "max_tokens"), "many"),
        ("chat", ("reasoning", "effort"), 5),
        ("chat", ("response_format", "json_schema"), "x"),
        ("chat", ("response_format", "json_schema", "schema"), []),
        ("responses", ("input", 0, "content", 1, "image_url"), {}),
        ("responses", ("input", 0, "content", 1, "detail"), {}),
        ("responses", ("input", 0, "content", 2, "file_data"), 5),
        ("responses", ("input", 1, "format"), []),
        ("responses", ("input", 1, "encrypted_content"), {}),
        ("responses", ("tools", 0, "parameters"), "x"),
        ("responses", ("text", "format", "schema"), "x"),
        ("responses", ("reasoning", "effort"), {}),
        ("messages", ("messages", 1, "content", 0, "signature"), ["x"]),
        ("messages", ("messages", 1, "content", 3, "id"), 5),
        ("messages", ("tools", 0, "input_schema"), "x"),
        ("messages", ("tools", 0, "description"), 5),
        ("messages", ("thinking", "budget_tokens"), "many"),
        ("messages", ("output_config", "format", "schema"), "x"),
        ("completions", ("logit_bias", "5"), "x"),
        ("embeddings", ("input", 1), {}),
    ],
)
def test_a_wrong_type_deep_inside_is_named(dialect: str, path: tuple[Any, ...], value: Any) -> None:
    """The error says where, in the words of the client's own document."""
    decode, body = DIALECTS[dialect]
    with pytest.raises(InvalidRequest) as caught:
        decode(msgspec.json.encode(put(body, path, value)))
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    assert caught.value.param == where[1:]
