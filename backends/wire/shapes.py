"""Checks of what stands inside messages, tools and formats, shared by all client dialects.

Whatever an encoder looks into has been checked here: what it finds has the type it expects.
Keys that nobody knows travel on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.wire.checks import (
    Check,
    InvalidRequest,
    boolean,
    breakpoint_of,
    cache_control,
    integer,
    list_of,
    mapping,
    object_of,
    one_of,
    text,
    text_or_object,
    typed_object,
)

ROLES = ("system", "developer", "user", "assistant", "tool")
PARTS = ("text", "image_url", "input_audio", "video_url", "file", "refusal")

EFFORT = one_of("max", "xhigh", "high", "medium", "low", "minimal", "none")
REASONING = object_of(
    {},
    {
        "effort": EFFORT,
        "max_tokens": integer(0),
        "enabled": boolean,
        "exclude": boolean,
        "summary": text,
    },
)


def _id(path: str, value: Any) -> None:
    """Check for an id, which some upstreams count instead of spelling."""
    if not isinstance(value, str | int):
        raise InvalidRequest(f"{path!r} must be a string", path)


REASONING_DETAIL = object_of(
    {},
    {
        "id": _id,
        **dict.fromkeys(("type", "format", "text", "summary", "data", "signature"), text),
    },
)
FILE = object_of({}, dict.fromkeys(("filename", "file_data", "file_url", "file_id"), text))
AUDIO = object_of({"data": text, "format": text})
_PARTS: Mapping[str, Check] = {
    "text": text,
    "refusal": text,
    "image_url": object_of({"url": text}, {"detail": text}),
    "input_audio": AUDIO,
    "video_url": object_of({"url": text}),
    "file": FILE,
}
_NAMED = object_of({"name": text})
_FUNCTION = object_of({"name": text}, {"arguments": text})
FUNCTION_OPTIONS: Mapping[str, Check] = {
    "description": text,
    "parameters": mapping,
    "strict": boolean,
}
_CUSTOM_CALL = object_of({"name": text, "input": text})
_CUSTOM_TOOL = object_of(
    {
        "custom": object_of(
            {"name": text},
            {"description": text, "format": object_of({"type": text}, {"grammar": mapping})},
        )
    }
)
_TOOL = object_of(
    {"function": object_of({"name": text}, {**FUNCTION_OPTIONS, "cache_control": cache_control})},
    {"cache_control": cache_control},
)
SCHEMA_OPTIONS: Mapping[str, Check] = {
    "name": text,
    "description": text,
    "schema": mapping,
    "strict": boolean,
}
_SCHEMA = object_of({}, SCHEMA_OPTIONS)


def _call(path: str, value: Any) -> None:
    """Check for a call of an earlier turn; those of other types than functions travel on."""
    object_of({}, {"id": text, "type": text})(path, value)
    if value.get("type") in (None, "", "function") or value.get("function") is not None:
        _FUNCTION(f"{path}.function", value.get("function"))
    if value.get("type") == "custom":
        _CUSTOM_CALL(f"{path}.custom", value.get("custom"))


_MESSAGE = object_of(
    {},
    {
        "name": text,
        "tool_calls": list_of(_call),
        "refusal": text,
        "reasoning": text,
        "reasoning_content": text,
        "reasoning_details": list_of(REASONING_DETAIL),
        "is_error": boolean,
        "cache_control": cache_control,
    },
)


def tool_choice(path: str, value: Any) -> None:
    """Check for a word, or an object that may name a function."""
    text_or_object(path, value)
    if isinstance(value, str):
        return
    typed_object(path, value)
    if value["type"] == "function" or value.get("function") is not None:
        _NAMED(f"{path}.function", value.get("function"))
    if value["type"] == "custom":
        _NAMED(f"{path}.custom", value.get("custom"))


def tools(path: str, value: Any) -> None:
    """Check for a list of tools for the client to run; a function may leave out ``type``."""
    list_of(mapping)(path, value)
    for position, tool in enumerate(value):
        where = f"{path}[{position}]"
        if tool.get("type") is None and tool.get("function") is not None:
            _TOOL(where, tool)
            continue
        typed_object(where, tool)
        if tool["type"] == "function":
            _TOOL(where, tool)
        elif tool["type"] == "custom":
            _CUSTOM_TOOL(where, tool)
        else:
            raise InvalidRequest(
                f"'{where}.type': {tool['type']!r} runs at the server, and server tools are not "
                "offered",
                f"{where}.type",
                "unsupported",
            )


def response_format(path: str, value: Any) -> None:
    """Check for an object with a ``type``, and the schema of one that has one."""
    typed_object(path, value)
    if value.get("json_schema") is not None:
        _SCHEMA(f"{path}.json_schema", value["json_schema"])


def messages(path: str, value: Any) -> None:
    """Check for a list of messages with known roles and parts."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{path!r} must be a list with at least one message", path)
    for position, entry in enumerate(value):
        _message(f"{path}[{position}]", entry)


def _message(path: str, value: Any) -> None:
    mapping(path, value)
    role = value.get("role")
    if role not in ROLES:
        raise InvalidRequest(f"'{path}.role' must be one of {', '.join(ROLES)}", f"{path}.role")
    if role == "tool" and not isinstance(value.get("tool_call_id"), str):
        where = f"{path}.tool_call_id"
        raise InvalidRequest(f"{where!r} must be the id of the tool call it answers", where)
    _MESSAGE(path, value)
    content = value.get("content")
    if isinstance(content, str) or (content is None and role == "assistant"):
        return
    where = f"{path}.content"
    if content == [] and value.get("tool_calls"):
        return  # which says what null says
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"{where!r} must be a string or a list of parts", where)
    for position, part in enumerate(content):
        _part(f"{where}[{position}]", part)


def _part(path: str, value: Any) -> None:
    mapping(path, value)
    kind = value.get("type")
    if kind not in PARTS:
        raise InvalidRequest(f"'{path}.type' must be one of {', '.join(PARTS)}", f"{path}.type")
    _PARTS[kind](f"{path}.{kind}", value.get(kind))
    breakpoint_of(path, value)
