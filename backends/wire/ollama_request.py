"""Ollama's own requests: an upstream's body out.

Source: Ollama's API reference, ``/api/chat`` and ``/api/embed`` (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.custom_tools import function_of
from backends.wire.prompts import text_of

_NAMES: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
}
_ROLES: Final = {"developer": "system"}
_EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}


def encode_request(
    request: ChatRequest, *, model: str, options_key: str = "", window: int | None = None
) -> dict[str, Any]:
    """Return the body of a streamed chat; see chat's ``encode_request``.

    Args:
        request: what to ask.
        model: the upstream's model name.
        options_key: the slug of ``provider.options`` meant for this endpoint.
        window: the context to load the model with, tokens; None for the server's default.

    Raises:
        Unsupported: an image is no ``data:`` URL, arguments are no object, or a tool is custom.
    """
    params = request.params
    options = {there: params[here] for here, there in _NAMES.items() if here in params}
    if request.stop:
        options["stop"] = list(request.stop)
    if request.output_bound is not None:
        options["num_predict"] = request.output_bound
    if window is not None:
        options["num_ctx"] = window
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request.messages),
        "stream": True,
        "options": options,
    }
    if tools := params.get("tools"):
        body["tools"] = [_tool(tool) for tool in tools]
    form = params.get("response_format")
    if form is not None and form["type"] != "text":
        body["format"] = _format(form)
    think = _think(params)
    if think is not None:
        body["think"] = think
    vendor_options.add(body, request, options_key)
    return body


def encode_embed(request: ChatRequest, *, model: str, options_key: str = "") -> dict[str, Any]:
    """Return the body of an embed request; a text that does not fit is an error there."""
    given = request.native.body if request.native is not None else {}
    body: dict[str, Any] = {"model": model, "input": list(request.inputs), "truncate": False}
    if given.get("dimensions") is not None:
        body["dimensions"] = given["dimensions"]
    vendor_options.add(body, request, options_key)
    return body


def _messages(messages: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}
    """Of tools, by the id of their call: an answer goes by the tool's name here."""
    written = []
    for message in messages:
        role = message["role"]
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        images = [_image(part) for part in parts if part["type"] == "image_url"]
        rest = [part for part in parts if part["type"] != "image_url"] if parts else content
        turn: dict[str, Any] = {"role": _ROLES.get(role, role), "content": text_of(rest)}
        if images:
            turn["images"] = images
        if role == "tool":
            turn["tool_call_id"] = message["tool_call_id"]
            if name := names.get(message["tool_call_id"]):
                turn["tool_name"] = name
        if role == "assistant" and message.get("reasoning"):
            turn["thinking"] = message["reasoning"]
        if calls := message.get("tool_calls"):
            turn["tool_calls"] = [_call(call, names) for call in calls]
        written.append(turn)
    return written


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if tool["type"] != "function":
        raise Unsupported(f"'tools': the type {tool['type']!r} is not offered here")
    return tool


def _call(call: Mapping[str, Any], names: dict[str, str]) -> dict[str, Any]:
    function = function_of(call)
    name = str(function["name"])
    names[str(call.get("id"))] = name
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"the arguments of a call of {name!r} are no JSON object") from error
    return {"id": call.get("id"), "function": {"name": name, "arguments": arguments}}


def _image(part: Mapping[str, Any]) -> str:
    head, found, data = str(part["image_url"].get("url", "")).partition(";base64,")
    if not found or not head.startswith("data:"):
        raise Unsupported(
            "this endpoint takes images only as data: URLs in base64; nothing is fetched for it"
        )
    return data


def _format(form: Mapping[str, Any]) -> Any:
    if form["type"] == "json_object":
        return "json"
    if form["type"] == "json_schema":
        return (form.get("json_schema") or {}).get("schema") or "json"
    raise Unsupported(f"'response_format.type' {form['type']!r} is not offered here")


def _think(params: Mapping[str, Any]) -> bool | str | None:
    given = params.get("reasoning") or {}
    effort = given.get("effort") or params.get("reasoning_effort")
    if given.get("enabled") is False or effort == "none":
        return False
    if effort:
        return _EFFORTS.get(effort, "high")
    return True if given.get("enabled") else None
