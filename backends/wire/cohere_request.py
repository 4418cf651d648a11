"""Cohere's v2 chat and embed requests: an upstream's body out.

Source: Cohere's API reference, ``/v2/chat`` and ``/v2/embed``, and its SDK 7.3 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.custom_tools import chosen_function, function_of
from backends.wire.prompts import text_of

MAX_TEXTS: Final = 96
"""Texts in one embed request."""

_NAMES: Final = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
"""What the wire wants of a function without any."""

_ROLES: Final = {"developer": "system"}


def encode_request(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body of a streamed chat; see chat's ``encode_request``.

    Raises:
        Unsupported: the wire cannot say what a value or a part means.
    """
    params = request.params
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
    }
    body |= {there: params[here] for here, there in _NAMES.items() if here in params}
    if request.output_bound is not None:
        body["max_tokens"] = request.output_bound
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    body |= _tools(params)
    body |= _thinking(params)
    form = params.get("response_format")
    if form is not None and form["type"] != "text":
        body["response_format"] = _format(form)
    vendor_options.add(body, request, options_key)
    return body


def encode_embed(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body of an embed request.

    Raises:
        Unsupported: there are more texts than the wire takes.
    """
    if len(request.inputs) > MAX_TEXTS:
        raise Unsupported(f"'input': this endpoint takes at most {MAX_TEXTS} texts at a time")
    given = request.native.body if request.native is not None else {}
    body: dict[str, Any] = {
        "model": model,
        "texts": list(request.inputs),
        "input_type": given.get("input_type") or "search_document",
        "embedding_types": ["float"],
        "truncate": "NONE",
    }
    if given.get("dimensions") is not None:
        body["output_dimension"] = given["dimensions"]
    vendor_options.add(body, request, options_key)
    return body


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message["role"]
    content = message.get("content")
    if role == "assistant":
        return _assistant(message)
    if role == "tool":
        return {
            "role": "tool",
            "tool_call_id": message["tool_call_id"],
            "content": text_of(content),
        }
    if not isinstance(content, str):
        content = [_part(part) for part in content or ()]
    return {"role": _ROLES.get(role, role), "content": content}


def _assistant(message: Mapping[str, Any]) -> dict[str, Any]:
    """Hand a turn back as it came: a plan before calls, else thoughts before the text."""
    turn: dict[str, Any] = {"role": "assistant"}
    text, thought = text_of(message.get("content")), message.get("reasoning")
    if calls := message.get("tool_calls"):
        turn["tool_calls"] = [{**call, "function": function_of(call)} for call in calls]
        if thought:
            turn["tool_plan"] = thought
        if text:
            turn["content"] = text
    elif thought:
        parts = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": text}]
        turn["content"] = parts
    else:
        turn["content"] = text
    return turn


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "image_url":
        return {"type": "image_url", "image_url": part["image_url"]}
    return {"type": "text", "text": text_of([part])}


def _tools(params: Mapping[str, Any]) -> dict[str, Any]:
    tools = params.get("tools") or []
    choice = params.get("tool_choice")
    if not tools:
        return {}
    if isinstance(choice, dict):  # one function at will: only it is there, and a call is required
        name = chosen_function(choice)
        tools = [tool for tool in tools if _function(tool).get("name") == name]
        if not tools:
            raise Unsupported(f"'tool_choice' names {name!r}, which is not among the tools")
        choice = "required"
    body: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if choice in ("required", "none"):
        body["tool_choice"] = choice.upper()
    if any(_function(tool).get("strict") for tool in tools):
        body["strict_tools"] = True
    return body


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = _function(tool)
    kept: Iterable[str] = ("name", "description", "parameters")
    said = {name: function[name] for name in kept if function.get(name) is not None}
    return {"type": "function", "function": {"parameters": _NO_PARAMETERS, **said}}


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool.get("type") != "function":
        raise Unsupported(f"a tool of type {tool.get('type')!r} is not offered here")
    function = tool["function"]
    assert isinstance(function, Mapping)  # checked at the edge
    return function


def _thinking(params: Mapping[str, Any]) -> dict[str, Any]:
    """Say whether to think, and for how long; the wire has no words for effort."""
    given = params.get("reasoning") or {}
    effort = given.get("effort") or params.get("reasoning_effort")
    budget = given.get("max_tokens")
    if given.get("enabled") is False or effort == "none":
        return {"thinking": {"type": "disabled"}}
    if budget is not None:
        return {"thinking": {"type": "enabled", "token_budget": budget}}
    if given.get("enabled") or effort:
        return {"thinking": {"type": "enabled"}}
    return {}


def _format(form: Mapping[str, Any]) -> dict[str, Any]:
    if form["type"] == "json_object":
        return {"type": "json_object"}
    if form["type"] == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
        return {"type": "json_object", **({"json_schema": schema} if schema else {})}
    raise Unsupported(f"'response_format.type' {form['type']!r} is not offered here")
