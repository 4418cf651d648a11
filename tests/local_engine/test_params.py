"""What a chat body may hold, and which field is named when it may not."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_engine.errors import RequestRefused
from local_engine.params import ChatParams, Message, decode_chat

steady = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def decode(**fields: object) -> ChatParams:
    """Decode a small valid body with some fields changed."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return decode_chat(json.dumps(body).encode())


def test_a_small_body_takes_the_defaults() -> None:
    """What is left out has OpenAI's default."""
    assert decode() == ChatParams(model="m", messages=(Message("user", "hi"),))


def test_every_honored_field_arrives() -> None:
    """No honored field is lost on the way."""
    chat = decode(
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        seed=-4,
        stop=["a", "b"],
        user="someone",
    )
    assert chat == ChatParams(
        model="m",
        messages=(Message("user", "hi"),),
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        seed=-4,
        stop=("a", "b"),
        stream=True,
        include_usage=True,
        continuous_usage=True,
    )


def test_messages_keep_order_and_text_parts_are_joined() -> None:
    """A developer is a system; parts of text become one content."""
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat = decode(
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []},
        ]
    )
    assert [(m.role, m.content) for m in chat.messages] == [
        ("system", "be kind"),
        ("user", "one\ntwo"),
        ("assistant", "yes"),
    ]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"presence_penalty": -1}, "presence_penalty", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"n": True}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "unsupported_parameter"),
        ({"colour": "red"}, "colour", "unsupported_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_type"),
        ({"min_p": 2}, "min_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": "x" * 1001}, "stop", "invalid_value"),
        ({"stop": [1]}, "stop", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        (
            {"stream": True, "stream_options": {"verbose": 1}},
            "stream_options.verbose",
            "unsupported_parameter",
        ),
        ({"stream": True, "stream_options": 1}, "stream_options", "invalid_type"),
        ({"user": 3}, "user", "invalid_type"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": "x", "name": "Al"}]},
            "messages[0].name",
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
    ],
)
def test_what_is_not_honored_is_refused_by_name(
    fields: dict[str, object], param: str, code: str
) -> None:
    """A parameter is honored or refused, never ignored; the refusal names it by its path."""
    with pytest.raises(RequestRefused) as caught:
        decode(**fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert param in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 0, "presence_penalty": 0.0, "n": 1, "logprobs": False},
        {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}},
        {"logit_bias": {}, "stop": None, "seed": None, "temperature": None, "anything": None},
        {"parallel_tool_calls": True, "top_k": -1, "stop": []},
    ],
)
def test_null_and_defaults_count_as_absent(fields: dict[str, object]) -> None:
    """Client libraries send defaults along; they change nothing."""
    assert decode(**fields) == decode()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b'{"model": NaN}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_not_one_json_object_is_a_400(body: bytes) -> None:
    """Nor may it end the process."""
    with pytest.raises(RequestRefused) as caught:
        decode_chat(body)
    assert caught.value.status == 400


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    ["messages", "model", "stop", "seed", "n", "stream", "stream_options", "temperature", "x"]
)


@steady
@given(st.dictionaries(_NAMES, _VALUES))
def test_no_body_gets_anything_but_an_answer_or_a_400(fields: dict[str, object]) -> None:
    """Whatever the values, decoding gives parameters or names a fault."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    try:
        found: object = decode_chat(json.dumps(body).encode())
    except RequestRefused as refused:
        found = refused.status
    assert found == 400 or isinstance(found, ChatParams)
