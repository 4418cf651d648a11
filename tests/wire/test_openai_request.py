"""A client's body is understood whole or refused by name (design decision 6)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.types import ChatRequest, ProviderPreferences
from backends.wire import checks
from backends.wire.checks import InvalidRequest
from backends.wire.openai_request import decode_request, encode_request

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BASE: dict[str, Any] = {"model": "acme/chat", "messages": [USER]}


def decode(**fields: Any) -> ChatRequest:
    """Decode the smallest good body with these fields."""
    return decode_request(json.dumps(BASE | fields).encode()).request


def refusal(body: bytes) -> InvalidRequest:
    """Return why a body is refused."""
    with pytest.raises(InvalidRequest) as caught:
        decode_request(body)
    return caught.value


def refused(**fields: Any) -> InvalidRequest:
    """Return why the smallest good body with these fields is refused."""
    return refusal(json.dumps(BASE | fields).encode())


def message(**fields: Any) -> list[dict[str, Any]]:
    """Return messages whose only one is a user's with these fields."""
    return [USER | fields]


def part(**fields: Any) -> list[dict[str, Any]]:
    """Return messages whose content is one part."""
    return message(content=[fields])


def test_the_smallest_body_asks_one_model_for_one_answer() -> None:
    """Everything else has a meaning when absent."""
    body = json.dumps(BASE).encode()
    decoded = decode_request(body)
    assert not decoded.stream
    assert decoded.request == ChatRequest(
        models=("acme/chat",),
        messages=(USER,),
        params={},
        required=frozenset(),
        prompt_bytes=len(body),
        content_bytes=len(USER["content"]),
    )


GOOD: dict[str, list[Any]] = {
    "temperature": [0, 0.5, 2, 2.0],
    "top_p": [0, 0.5],
    "top_k": [1, 100],
    "top_a": [0.5, 1],
    "min_p": [0.5, 1],
    "frequency_penalty": [-2, 2, 0.5],
    "presence_penalty": [-2, 2, 0.5],
    "repetition_penalty": [0, 2, 1.5],
    "logit_bias": [{"50256": -100}, {"1": 100, "2": 0.5}],
    "logprobs": [True],
    "top_logprobs": [1, 20],
    "seed": [0, -1, 2**63 - 1, -(2**63)],
    "stop": ["a", ["a"], ["a", "b", "c", "d"]],
    "n": [2, 128],
    "min_tokens": [1],
    "ignore_eos": [True],
    "stop_token_ids": [[0], [1, 2, 3]],
    "max_tokens": [1, 10**6],
    "max_completion_tokens": [1],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}],
    "tools": [[{"type": "function", "function": {"name": "f", "x": 1}}]],
    "tool_choice": [
        "required",
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "f"}},
    ],
    "parallel_tool_calls": [False],
    "reasoning": [{"effort": "high"}, {"max_tokens": 5}],
    "reasoning_effort": ["max", "xhigh", "high", "medium", "low", "minimal", "none"],
    "verbosity": ["low"],
    "modalities": [["text", "image"], ["audio"]],
    "image_config": [{}],
    "prediction": [{"type": "content", "content": "x"}],
    "prompt_cache_key": ["k"],
    "prompt_cache_options": [{}],
    "cache_control": [{"type": "ephemeral"}],
    "service_tier": ["flex"],
}
"""Values that are kept and that an endpoint must honor."""

DEFAULTS: dict[str, list[Any]] = {
    "temperature": [1, 1.0],
    "top_p": [1, 1.0],
    "top_k": [0, -1],
    "top_a": [0],
    "min_p": [0],
    "frequency_penalty": [0, 0.0],
    "presence_penalty": [0],
    "repetition_penalty": [1],
    "logit_bias": [{}],
    "logprobs": [False],
    "top_logprobs": [0],
    "stop": [[]],
    "n": [1],
    "min_tokens": [0],
    "ignore_eos": [False],
    "stop_token_ids": [[]],
    "response_format": [{"type": "text"}],
    "tools": [[]],
    "tool_choice": ["auto", "none"],
    "parallel_tool_calls": [True],
    "reasoning": [{}],
    "verbosity": ["medium"],
    "modalities": [["text"], []],
    "service_tier": ["auto", "default"],
}
"""Values that count as absent when endpoints are chosen."""

NOT_SENT: dict[str, list[Any]] = {
    "stream": [True, False],
    "stream_options": [{"include_usage": False}, {}],
    "usage": [{"include": True}, {}],
    "route": ["fallback"],
    "user": ["u"],
    "metadata": [{"a": "b"}],
    "trace": [{}],
    "transforms": [[]],
    "plugins": [[]],
}
"""Accepted, and kept from the upstream."""

BAD: dict[str, list[Any]] = {
    "temperature": [-0.1, 2.1, "1", True, [], 10**400, -(10**400)],
    "top_p": [-0.1, 1.1, "1", False],
    "top_k": [-2, 0.5, "1", True],
    "top_a": [1.5],
    "min_p": [-1],
    "frequency_penalty": [-2.1, 2.1],
    "presence_penalty": [-3, 3, {}],
    "repetition_penalty": [-0.1, 2.5],
    "logit_bias": [[], {"a": 1}, {"1": 101}, {"1": True}, {"1": "2"}, {"1": None}],
    "logprobs": [1, "true"],
    "top_logprobs": [-1, 21, 1.0, True],
    "seed": [2**63, -(2**63) - 1, 0.5, "7", True],
    "stop": ["", [""], ["a"] * 5, [1], 5, {}],
    "n": [0, 129, 1.0, "2", True, -1],
    "min_tokens": [-1, True],
    "ignore_eos": [0, "no"],
    "stop_token_ids": [5, [-1], [0.5], ["1"], [True]],
    "max_tokens": [0, -1, 1.5, "5", True, 2**53, 10**30],
    "max_completion_tokens": [0, False],
    "response_format": ["json", {}, {"type": 5}, []],
    "tools": [
        {},
        ["f"],
        [{}],
        [{"type": "function"}],
        [{"type": "function", "function": {}}],
        [{"type": "web_search"}],
        [{"type": "openrouter:web_search"}],
        [{"type": "function", "function": {"name": "f"}, "cache_control": {"ttl": "1h"}}],
    ],
    "tool_choice": [5, [], True],
    "parallel_tool_calls": ["yes", 1],
    "reasoning": ["high", []],
    "reasoning_effort": ["extreme", 5, {}, []],
    "verbosity": [5],
    "modalities": ["text", ["smell"], [["text"]]],
    "image_config": [5],
    "prediction": ["x"],
    "prompt_cache_key": [5],
    "prompt_cache_options": ["x"],
    "cache_control": ["ephemeral", {"type": "ephemeral", "ttl": "1h"}],
    "service_tier": [5, {}],
    "stream": ["true", 1],
    "stream_options": [True],
    "usage": [True, {"include": 1}, {"exclude": True}],
    "route": [5],
    "user": [5],
    "metadata": ["x"],
    "trace": [5],
    "transforms": [["middle-out"], {}, "x"],
    "plugins": [[{"id": "web"}], {}],
    "model": ["", 5, [], "x" * 257],
    "models": ["acme/chat", [""], [5], ["m"] * 33, {}],
    "messages": [[], {}, "hi", [[]], ["hi"]],
    "provider": [[], "x"],
}
"""Values out of range or of a wrong type."""


def pairs(table: dict[str, list[Any]]) -> list[Any]:
    """Return one case per field and value."""
    return [
        pytest.param(name, value, id=f"{name}={str(value)[:24]}-{number}")
        for name, values in table.items()
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(("name", "value"), pairs(GOOD))
def test_a_known_field_is_kept_and_must_be_honored(name: str, value: Any) -> None:
    """The value stays as it was given, and endpoints that lack the field are out."""
    request = decode(**{name: value})
    assert request.params == {name: value}
    custom = isinstance(value, dict) and value.get("type") == "custom"
    assert request.required == ({name, "tools.custom"} if custom else {name})


@pytest.mark.parametrize(("name", "value"), pairs(DEFAULTS))
def test_a_default_value_excludes_no_endpoint(name: str, value: Any) -> None:
    """Clients that write out the defaults lose no endpoint by it."""
    assert decode(**{name: value}).required == frozenset()


@pytest.mark.parametrize("name", sorted({*GOOD, *NOT_SENT, "provider"}))
def test_null_is_the_same_as_absent(name: str) -> None:
    """For every known field."""
    assert msgspec.structs.replace(decode(**{name: None}), prompt_bytes=0) == (
        msgspec.structs.replace(decode(), prompt_bytes=0)
    )


@pytest.mark.parametrize(("name", "value"), pairs(NOT_SENT))
def test_a_field_for_the_gateway_does_not_reach_the_upstream(name: str, value: Any) -> None:
    """It is accepted, excludes no endpoint, and is not passed on."""
    request = decode(**{name: value})
    assert (request.params, request.required) == ({}, frozenset())
    sent = encode_request(request, model="m")
    assert set(sent) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(("name", "value"), pairs(BAD))
def test_a_wrong_value_is_refused_by_its_field(name: str, value: Any) -> None:
    """The error says which field, in its text and for machines."""
    error = refused(**{name: value})
    assert error.param is not None
    assert error.param.split(".")[0].split("[")[0] == name
    assert name in error.message
    assert len(error.message) <= checks.MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("name", "hint"),
    [("temprature", "temperature"), ("max_token", "max_tokens"), ("Messages", "messages"),
     ("stop_sequences", None), ("", None), ("web_search_options", None)],
)  # fmt: skip
def test_an_unknown_field_is_refused_with_a_suggestion(name: str, hint: str | None) -> None:
    """By name, with the nearest known one and the place for vendor-specific fields."""
    error = refused(**{name: 1})
    assert (error.param, error.code) == (name, "unknown_parameter")
    assert "provider.options" in error.message
    if hint:
        assert f"did you mean {hint!r}?" in error.message


@pytest.mark.parametrize("name", ["session_id", "debug", "stop_server_tools_when"])
def test_a_field_that_is_not_offered_says_so(name: str) -> None:
    """It is known, and not pretended."""
    error = refused(**{name: "x"})
    assert (error.param, error.code) == (name, "unsupported")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"model": "a"',
        b"[]",
        b'"text"',
        b"5",
        b"null",
        b"\xff\xfe{}",
        b'{"model": "\xff"}',
        b'{"model": "\xed\xa0\x80"}',
        b'{"model": "a\nb"}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "hi"}]}',
        b'{"model": "a", "messages": [{"role": "user", "content": "\\udc00x"}]}',
        b'{"model": "a", "temperature": NaN}',
        b'{"model": "a", "temperature": Infinity}',
        b'{"model": "a", "temperature": 1e999}',
        b'{"model": "a", "seed": ' + b"9" * 5000 + b"}",
        b"{'model': 'a'}",
        b'{"model": "a"} {}',
        b'\xef\xbb\xbf{"model": "a"}',
    ],
)
def test_a_body_that_is_not_one_json_object_in_utf8_is_refused(body: bytes) -> None:
    """Not JSON, not UTF-8, not an object, or not only one."""
    error = refusal(body)
    assert error.param is None
    assert "JSON" in error.message


def spent_s(call: Callable[[], Any]) -> float:
    """Return the processor's seconds for a call, at best."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return min(spent)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [checks.MAX_DEPTH + 1, 500, 100_000, 3_000_000])
def test_deep_nesting_is_refused_quickly(opening: bytes, depth: int) -> None:
    """Whether the parser follows it or gives up, and wherever it stands."""
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    deep = opening * depth + b"1" + closing * depth
    body = b'{"model": "a", "messages": [{"role": "user", "content": "hi", "x": ' + deep + b"}]}"
    started = time.process_time()
    assert "nested" in refusal(body).message
    assert time.process_time() - started < 5


def test_nesting_within_the_bound_is_read() -> None:
    """A tool's schema may be deep."""
    depth = checks.MAX_DEPTH - 5
    schema = json.loads('{"a":' * depth + "1" + "}" * depth)
    decode(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_token_ids": [7] * 2_000_000},
        {"logit_bias": {str(number): 1 for number in range(300_000)}},
        {"messages": [USER] * 150_000},
        {"messages": message(x=[[]] * 300_000)},
        {"messages": message(content=[{"type": "text", "text": "a"}] * 150_000)},
    ],
    ids=["token ids", "biases", "messages", "lists", "parts"],
)
def test_too_many_values_are_refused_quickly(fields: dict[str, Any]) -> None:
    """Before any of them is looked at one by one: a body may stall no other stream."""
    body = json.dumps(BASE | fields).encode()
    assert "values" in refusal(body).message
    assert spent_s(lambda: refusal(body)) < 15 * spent_s(lambda: json.loads(body))


def test_a_long_text_full_of_commas_and_brackets_is_no_tree() -> None:
    """What is counted is values, not characters."""
    text = "[{,}]" * 300_000
    assert decode(messages=message(content=text)).messages[0]["content"] == text


@pytest.mark.parametrize(
    "fields",
    [
        {"x" * 1_000_000: 1},
        {"usage": {"y" * 1_000_000: 1}},
        {"logit_bias": {"z" * 1_000_000: 1}},
        {"provider": {"options": {"a" * 1_000_000: 5}}},
        {"provider": {"b" * 1_000_000: 5}},
    ],
)
def test_a_name_as_long_as_a_body_is_not_repeated_whole(fields: dict[str, Any]) -> None:
    """Neither in the error nor in the search for a suggestion."""
    started = time.perf_counter()
    error = refused(**fields)
    assert time.perf_counter() - started < 1
    assert len(error.message) <= checks.MAX_MESSAGE_CHARS
    assert error.param is not None
    assert len(error.param) <= checks.MAX_NAME_CHARS
    assert str(error) == error.message


def test_of_a_repeated_key_the_last_one_counts() -> None:
    """As in every JSON reader that clients know."""
    body = b'{"model": "a", "model": "b", "messages": [{"role": "user", "content": "hi"}]}'
    assert decode_request(body).request.models == ("b",)


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({"model": "a"}, ("a",)),
        ({"models": ["b", "c"]}, ("acme/chat", "b", "c")),
        ({"model": None, "models": ["b", "c"]}, ("b", "c")),
        ({"model": "c", "models": ["b", "c"]}, ("c", "b")),
        ({"models": ["b", "b"]}, ("acme/chat", "b")),
        ({"models": []}, ("acme/chat",)),
    ],
)
def test_model_counts_as_the_first_of_models(fields: Any, models: tuple[str, ...]) -> None:
    """Each name is tried once, in the caller's order."""
    assert decode(**fields).models == models


@pytest.mark.parametrize("fields", [{"model": None}, {"model": None, "models": []}])
def test_a_body_without_a_model_is_refused(fields: Any) -> None:
    """The error says where the names are."""
    error = refused(**fields)
    assert error.param == "model"
    assert "/v1/models" in error.message


@pytest.mark.parametrize("messages", [None, []])
def test_a_body_without_messages_is_refused(messages: Any) -> None:
    """There is nothing to answer."""
    assert refused(messages=messages).param == "messages"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, USER],
        [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        [USER, {"role": "assistant"}],
        [USER, {"role": "tool", "tool_call_id": "c", "content": "7"}],
        message(content=""),
        message(name="Ann", cache_control={"type": "ephemeral"}, unknown=1),
        part(type="text", text="", unknown=1),
        [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
    ],
)
def test_messages_are_kept_as_they_were_given(messages: Any) -> None:
    """Unknown keys inside them included: an upstream of the same wire may know them."""
    assert list(decode(messages=messages).messages) == messages


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "wizard", "content": "hi"}], "messages[0].role"),
        ([{"role": ["user"], "content": "hi"}], "messages[0].role"),
        ([USER, {"role": "user"}], "messages[1].content"),
        (message(content=None), "messages[0].content"),
        (message(content=5), "messages[0].content"),
        (message(content=[]), "messages[0].content"),
        (message(content={}), "messages[0].content"),
        (message(content=["hi"]), "messages[0].content[0]"),
        (part(type="smell"), "messages[0].content[0].type"),
        (part(text="hi"), "messages[0].content[0].type"),
        (part(type="text"), "messages[0].content[0].text"),
        (part(type="text", text=5), "messages[0].content[0].text"),
        (part(type="refusal"), "messages[0].content[0].refusal"),
        (part(type="image_url", image_url="https://x"), "messages[0].content[0].image_url"),
        (part(type="file"), "messages[0].content[0].file"),
        ([{"role": "tool", "content": "7"}], "messages[0].tool_call_id"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": ["c"]}], "messages[0].tool_calls[0]"),
    ],
)
def test_a_wrong_message_is_refused_by_its_path(messages: Any, param: str) -> None:
    """Down to the part."""
    error = refused(messages=messages)
    assert error.param == param
    assert param in error.message


def test_parts_that_are_not_text_must_be_honored() -> None:
    """An endpoint without eyes is infeasible for an image; images are counted for the hold."""
    data = "data:image/png;base64," + "A" * 10_000
    content = [
        {"type": "text", "text": "what is it"},
        {"type": "image_url", "image_url": {"url": data, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": data}},
    ]
    request = decode(messages=message(content=content))
    assert request.required == {"image_url"}
    assert request.images == 2
    assert 0 < request.prompt_bytes < 1000


@pytest.mark.parametrize(
    ("kind", "named"),
    [("file", "file_data"), ("input_audio", "data"), ("video_url", "url")],
)
def test_bytes_of_other_media_count_as_prompt(kind: str, named: str) -> None:
    """They become tokens and no price per piece covers them: the hold must."""
    media = {named: "A" * 10_000} | ({"format": "wav"} if kind == "input_audio" else {})
    request = decode(messages=part(type=kind, **{kind: media}))
    assert request.required == {kind}
    assert request.images == 0
    assert request.prompt_bytes > 10_000


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_the_prompt_bound_is_never_below_the_text(text: str) -> None:
    """A token has at least one byte, however the client escaped its JSON."""
    for ascii_only in (True, False):
        body = json.dumps(BASE | {"messages": message(content=text)}, ensure_ascii=ascii_only)
        assert decode_request(body.encode()).request.prompt_bytes >= len(text.encode())


@pytest.mark.parametrize(
    ("fields", "limit", "name"),
    [
        ({}, None, "max_tokens"),
        ({"max_tokens": 5}, 5, "max_tokens"),
        ({"max_completion_tokens": 5}, 5, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 5, "max_completion_tokens"),
    ],
)
def test_the_output_limit_has_two_names(fields: Any, limit: int | None, name: str) -> None:
    """The one that was given is the one that is sent."""
    request = decode(**fields)
    assert (request.max_tokens, request.output_field) == (limit, name)


def test_two_output_limits_that_differ_are_refused() -> None:
    """Neither can be honored without breaking the other."""
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_tokens"


@pytest.mark.parametrize(
    ("given", "stop"), [("a", ("a",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())]
)
def test_stop_is_a_list_of_texts(given: Any, stop: tuple[str, ...]) -> None:
    """One text is a list of one."""
    assert decode(stop=given).stop == stop


@pytest.mark.parametrize(
    ("provider", "read"),
    [
        ({}, ProviderPreferences()),
        ({"require_parameters": None, "options": None}, ProviderPreferences()),
        ({"require_parameters": True}, ProviderPreferences()),
        ({"require_parameters": False}, ProviderPreferences(require_parameters=False)),
        (
            {"options": {"acme": {"safety": "low"}}},
            ProviderPreferences(options={"acme": {"safety": "low"}}),
        ),
    ],
)
def test_provider_preferences_are_read(provider: Any, read: ProviderPreferences) -> None:
    """Parameters are required unless the caller says otherwise."""
    assert decode(provider=provider).provider == read


@pytest.mark.parametrize(
    ("provider", "param"),
    [
        ({"sort": "price"}, "provider.sort"),
        ({"require_parameters": "no"}, "provider.require_parameters"),
        ({"options": []}, "provider.options"),
        ({"options": {"acme": 5}}, "provider.options.acme"),
        ({"options": {"acme": {"max_tokens": 9}}}, "provider.options.acme.max_tokens"),
        ({"options": {"acme": {"stream": False}}}, "provider.options.acme.stream"),
        ({"options": {"acme": {"model": "dear"}}}, "provider.options.acme.model"),
        ({"options": {"acme": {"service_tier": "x"}}}, "provider.options.acme.service_tier"),
        *(
            ({"options": {"acme": {name: 20}}}, f"provider.options.acme.{name}")
            for name in (
                "best_of",
                "bestOf",
                "num_predict",
                "prompt",
                "thinking_budget",
                "previous_response_id",
                "previousResponseId",
                "speed",
                "inference_geo",
                "audio",
                "search_parameters",
                "enable_search",
                "data_sources",
                "api_base",
            )
        ),
    ],
)
def test_wrong_provider_preferences_are_refused_by_path(provider: Any, param: str) -> None:
    """Options cannot set what the gateway checks, bounds and prices."""
    error = refused(provider=provider)
    assert error.param == param
    assert param in error.message


LONG = {"type": "ephemeral", "ttl": "1h"}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a", "cache_control": LONG},
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": LONG}]},
    ],
)
def test_a_longer_cache_time_is_refused_wherever_it_stands(message: dict[str, Any]) -> None:
    """It costs more than other writing to a cache, and has no price here."""
    error = refused(messages=[message])
    assert (error.param or "").endswith("cache_control.ttl")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "role", "content", "text", "function", "name", "image_url", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
_fields = st.sampled_from(sorted({*GOOD, *NOT_SENT, *BAD}))


@given(st.dictionaries(_fields, _json, max_size=3))
def test_any_value_in_any_field_is_understood_or_refused(fields: dict[str, Any]) -> None:
    """Nothing but ``InvalidRequest`` comes out, and what is accepted can be sent upstream."""
    body = msgspec.json.encode(BASE | fields)
    try:
        request = decode_request(body).request
    except InvalidRequest:
        return
    msgspec.json.encode(encode_request(request, model="m"))


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    """Nothing but ``InvalidRequest`` comes out."""
    with pytest.raises(InvalidRequest):
        decode_request(body)


_good = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in GOOD.items()}
)


@given(_good)
def test_what_we_send_upstream_says_what_the_client_said(fields: dict[str, Any]) -> None:
    """Decoding an encoded request gives the same request: nothing lost, nothing added."""
    fields.pop("max_completion_tokens", None)
    request = decode(**fields)
    bounded = msgspec.structs.replace(request, output_bound=request.max_tokens)
    again = decode_request(msgspec.json.encode(encode_request(bounded, model="acme/chat")))
    assert again.stream
    assert again.request == msgspec.structs.replace(
        request, prompt_bytes=again.request.prompt_bytes
    )


def test_no_parts_beside_calls_are_null() -> None:
    """Some clients write an empty list for it; few upstreams take one."""
    turn = {"role": "assistant", "content": [], "tool_calls": [CALL]}
    assert decode(messages=[USER, turn]).messages[1] == {**turn, "content": None}
    assert refused(messages=[{"role": "assistant", "content": []}]).param == "messages[0].content"


def test_a_function_may_leave_its_type_out() -> None:
    """As Mistral's clients do; others need it."""
    function = {"name": "f"}
    tools = decode(tools=[{"function": function}]).params["tools"]
    assert tools == [{"type": "function", "function": function}]
    assert refused(tools=[{"name": "f"}]).param == "tools[0].type"


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
@pytest.mark.parametrize(
    "tools", [None, [], [{"type": "function", "function": {"name": "f", "parameters": {}}}]]
)
def test_to_call_none_of_the_given_tools_is_no_default(choice: str, tools: Any) -> None:
    """An endpoint that lost it would let the model call; without tools there is nothing to call."""
    request = decode_request(
        json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            | {"tool_choice": choice, "tools": tools}
        ).encode()
    ).request
    wanted = choice == "required" or (choice == "none" and bool(tools))
    assert ("tool_choice" in request.required) is wanted
    assert request.params.get("tool_choice") == (choice if tools or wanted else None)
