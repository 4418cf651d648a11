"""Decodes and checks the body of an OpenAI chat request.

What is not honored is refused by name. The one exception is a value that says the same as leaving
the field out, which client libraries like to send.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

from local_engine.errors import RequestRefused
from local_engine.fields import Fields, as_object

Role = Literal["system", "user", "assistant"]

_ROLES = MappingProxyType[str, Role](
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)
_MAX_STOP_STRINGS = 16
_MAX_STOP_CHARS = 1000
_NO_EFFECT: tuple[tuple[str, object], ...] = (
    ("n", 1),
    ("best_of", 1),
    ("frequency_penalty", 0),
    ("presence_penalty", 0),
    ("repetition_penalty", 1),
    ("length_penalty", 1),
    ("logprobs", False),
    ("top_logprobs", 0),
    ("echo", False),
    ("use_beam_search", False),
    ("ignore_eos", False),
    ("min_tokens", 0),
    ("stop_token_ids", []),
    ("skip_special_tokens", True),
    ("tools", []),
    ("functions", []),
    ("tool_choice", "none"),
    ("tool_choice", "auto"),
    ("function_call", "none"),
    ("function_call", "auto"),
    ("parallel_tool_calls", True),
    ("parallel_tool_calls", False),
    ("logit_bias", {}),
    ("response_format", {"type": "text"}),
    ("modalities", ["text"]),
    ("service_tier", "auto"),
    ("service_tier", "default"),
    ("store", False),
    ("metadata", {}),
)
_NO_EFFECT_IN_MESSAGE: tuple[tuple[str, object], ...] = (
    ("tool_calls", []),
    ("annotations", []),
    ("refusal", ""),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation, as the chat template takes it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatParams:
    """A checked chat request; what was absent and has no fixed default is None.

    Attributes:
        max_tokens: None is the rest of the window.
        seed: None is a random one.
        include_usage: A last chunk tells the usage.
        continuous_usage: Every chunk tells it.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False


def decode_chat(body: bytes) -> ChatParams:
    """Decode and check a request body.

    Raises:
        RequestRefused: 400, naming the field.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestRefused("the body must be one JSON object", code="invalid_json")
    fields = Fields(value)
    model = fields.string("model")
    if not model:
        raise fields.missing("model")
    messages = _read_messages(fields)
    fields.string("user")
    stream = fields.boolean("stream")
    include_usage, continuous_usage = _read_stream_options(fields, stream=stream)
    params = ChatParams(
        model=model,
        messages=messages,
        max_tokens=_read_max_tokens(fields),
        temperature=_or(fields.number("temperature", 0, 2), 1.0),
        top_p=_or(fields.number("top_p", 0, 1), 1.0),
        top_k=max(0, fields.integer("top_k", -1, 2**31 - 1) or 0),
        min_p=_or(fields.number("min_p", 0, 1), 0.0),
        seed=fields.integer("seed", -(2**63), 2**63 - 1),
        stop=_read_stop(fields),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
    )
    fields.drop_defaults(_NO_EFFECT)
    fields.refuse_rest()
    return params


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _read_max_tokens(fields: Fields) -> int | None:
    old = fields.integer("max_tokens", 1, 2**31 - 1)
    new = fields.integer("max_completion_tokens", 1, 2**31 - 1)
    if old is not None and new is not None and old != new:
        raise fields.invalid("max_tokens", "differs from max_completion_tokens; send one of them")
    return old if new is None else new


def _read_stream_options(fields: Fields, *, stream: bool) -> tuple[bool, bool]:
    value = fields.take("stream_options")
    if value is None:
        return False, False
    options = as_object(value, fields.name("stream_options"))
    if not stream:
        raise fields.invalid("stream_options", "is allowed only with stream: true")
    usage = options.boolean("include_usage"), options.boolean("continuous_usage_stats")
    options.drop_defaults((("include_obfuscation", False),))
    options.refuse_rest()
    return usage


def _read_stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(item, str) for item in strings):
        raise fields.wrong_type("stop", "a string or an array of strings", value)
    if len(strings) > _MAX_STOP_STRINGS:
        raise fields.invalid("stop", f"{len(strings)} strings, at most {_MAX_STOP_STRINGS} allowed")
    if any(not 1 <= len(item) <= _MAX_STOP_CHARS for item in strings):
        raise fields.invalid("stop", f"each string needs 1 to {_MAX_STOP_CHARS} characters")
    return tuple(strings)


def _read_messages(fields: Fields) -> tuple[Message, ...]:
    value = fields.take("messages")
    if value is None:
        raise fields.missing("messages")
    if not isinstance(value, list):
        raise fields.wrong_type("messages", "an array", value)
    if not value:
        raise fields.invalid("messages", "at least one message is needed")
    return tuple(
        _read_message(as_object(item, f"messages[{index}]")) for index, item in enumerate(value)
    )


def _read_message(fields: Fields) -> Message:
    name = fields.string("role")
    if name is None:
        raise fields.missing("role")
    role = _ROLES.get(name)
    if role is None:
        raise fields.invalid("role", f"{name!r} is not one of {', '.join(_ROLES)}")
    content = _read_content(fields)
    fields.drop_defaults(_NO_EFFECT_IN_MESSAGE)
    fields.refuse_rest()
    return Message(role, content)


def _read_content(fields: Fields) -> str:
    value = fields.take("content")
    if value is None:
        raise fields.missing("content")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise fields.wrong_type("content", "a string or an array of text parts", value)
    parts = (as_object(item, f"{fields.name('content')}[{i}]") for i, item in enumerate(value))
    return "\n".join(_read_part(part) for part in parts)


def _read_part(part: Fields) -> str:
    kind = part.string("type")
    if kind != "text":
        name = part.name("type")
        raise RequestRefused(
            f"{name!r}: {kind!r} is not supported by this engine, only 'text'",
            param=name,
            code="unsupported_parameter",
        )
    text = part.string("text")
    if text is None:
        raise part.missing("text")
    part.refuse_rest()
    return text
