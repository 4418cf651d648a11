"""Anthropic Messages requests, as clients send them; ``encode_request`` is the other way.

Every known field is honored or refused by name (design decision 6). The fields are those of
Anthropic's Messages (its SDK 2.12, read 2026-11) and OpenRouter's additions. What only this
wire can express is required as ``messages.<field>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.types import ChatRequest, Native
from backends.wire import checks, shapes
from backends.wire.checks import Check, InvalidRequest
from backends.wire.dialect import Decoded
from backends.wire.messages_blocks import Reader, cacheable
from backends.wire.messages_upstream import encode_request
from backends.wire.openai_request import (
    _LATER,
    leave_out_tools,
    models_of,
    must_honor,
    parse,
    preferences_of,
)

__all__ = ["decode_request", "encode_request"]

_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
_CLIENT_TOOLS: Final = ("bash_", "text_editor_", "computer_", "memory_", "browser_")
"""Tools that Anthropic defines and the client runs; all others with a type run at the server."""

_CLIENT_TOOL_BYTES: Final = 4096
_DOCUMENT_BYTES: Final = 8192
"""What Anthropic itself adds to a prompt with its own tools or documents, in tokens, rounded up:
with small bodies more than they have bytes (its recorded answers show it)."""


_TOOL: Final = checks.object_of(
    {"name": checks.text, "input_schema": checks.mapping},
    {name: shapes.FUNCTION_OPTIONS[name] for name in ("description", "strict")},
)


def _any(path: str, value: Any) -> None:
    """Nothing to check here: the value is read later on."""


_FIELDS: Final[Mapping[str, Check]] = {
    "model": checks.model_name,
    "models": checks.model_names,
    "fallbacks": checks.list_of(checks.mapping),
    "messages": _any,
    "system": _any,
    "max_tokens": checks.integer(1),
    "temperature": checks.number(0, 1),
    "top_p": checks.number(0, 1),
    "top_k": checks.integer(0),
    "stop_sequences": checks.list_of(checks.text),
    "stream": checks.boolean,
    "tools": checks.list_of(checks.mapping),
    "tool_choice": checks.typed_object,
    "thinking": checks.typed_object,
    "output_config": checks.mapping,
    "output_format": checks.typed_object,
    "cache_control": checks.cache_control,
    "service_tier": checks.one_of("auto", "standard_only"),
    "speed": checks.one_of("standard"),
    "metadata": checks.mapping,
    "provider": checks.mapping,
    "plugins": checks.empty("plugins are not offered here"),
    "mcp_servers": checks.empty("server tools are not offered here"),
    "user": checks.text,
    "trace": checks.mapping,
}
_REFUSED: Final[Mapping[str, str]] = {
    **_LATER,
    "container": "containers are not offered",
    "context_management": "prompts are never rewritten here",
    "inference_geo": "a region changes the price and is not offered",
    "diagnostics": "the gateway keeps no earlier request to compare with",
    "user_profile_id": "user profiles are not offered",
    "workspace_id": "the gateway's own workspace is used",
}


def decode_request(body: bytes) -> Decoded:
    """Read and check one request of the Messages route.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    document = parse(body)
    if document.get("max_tokens") is None:
        raise InvalidRequest("'max_tokens' is required: a whole number of at least 1", "max_tokens")
    return Decoded(_request(document, len(body)), bool(document.get("stream")))


def decode_count(body: bytes) -> ChatRequest:
    """Read and check a request of the route that counts tokens: it needs no output limit.

    Raises:
        InvalidRequest: what is wrong, where, and what to write instead.
    """
    return _request(parse(body), len(body))


def _request(document: dict[str, Any], size: int) -> ChatRequest:
    document = {name: value for name, value in document.items() if value is not None}
    for name, value in document.items():
        check = _FIELDS.get(name)
        if check is None:
            raise _unknown(name)
        check(name, value)
    reader = Reader()
    if document.get("system"):
        reader.system("system", document["system"])
    _read_messages(reader, document.get("messages"))
    params, required = _params(document)
    content = checks.Content()
    for message in reader.messages:
        content.count(message)
    given = must_honor(params)
    if params.get("reasoning") == {"enabled": False}:
        given -= {"reasoning"}  # which is how every model of old answers
    max_tokens = document.get("max_tokens")
    return ChatRequest(
        models=_names(document),
        messages=tuple(reader.messages),
        params=params,
        required=frozenset(given | required | reader.required | content.required),
        prompt_bytes=max(size - content.image_bytes, 0) + _added(params, reader),
        content_bytes=content.text_bytes,
        tools_bytes=checks.json_bytes(params["tools"]) if params.get("tools") else 0,
        images=content.images,
        max_tokens=max_tokens,
        stop=tuple(params.get("stop", ())),
        native=Native("messages", document),
        provider=preferences_of(document.get("provider") or {}),
    )


def _unknown(name: str) -> InvalidRequest:
    if name in _REFUSED:
        return InvalidRequest(f"{name!r}: {_REFUSED[name]}; leave it out", name, "unsupported")
    hint = checks.closest(name, _FIELDS)
    return InvalidRequest(
        f"unknown field {name!r}{hint}; vendor-specific fields go into provider.options.<slug>",
        name,
        "unknown_parameter",
    )


def _read_messages(reader: Reader, messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' is required: a list with at least one message", "messages")
    for position, message in enumerate(messages):
        reader.message(f"messages[{position}]", message)
    if all(message["role"] == "system" for message in reader.messages):
        raise InvalidRequest("'messages' must hold something that is said", "messages")


def _names(document: Mapping[str, Any]) -> tuple[str, ...]:
    fallbacks = document.get("fallbacks") or []
    if fallbacks and document.get("models"):
        raise InvalidRequest("send 'models' or 'fallbacks', not both", "fallbacks")
    if len(fallbacks) > 3:
        raise InvalidRequest("'fallbacks' must hold at most 3 entries", "fallbacks")
    for position, entry in enumerate(fallbacks):
        where = f"fallbacks[{position}]"
        for name in entry:
            if name != "model":
                raise InvalidRequest(f"'{where}.{name}' is not offered; 'model' is", where)
        checks.model_name(f"{where}.model", entry.get("model"))
    names = document.get("models") or [entry["model"] for entry in fallbacks]
    return models_of({"model": document.get("model"), "models": names})


def _params(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the canonical parameters, and what only this wire can honor."""
    params: dict[str, Any] = {}
    required: set[str] = set()
    for name in ("temperature", "top_p", "top_k", "max_tokens", "cache_control"):
        if name in document:
            params[name] = document[name]
    if stops := document.get("stop_sequences"):
        params["stop"] = stops
        if len(stops) > checks.MAX_STOPS:
            required.add("messages.stop_sequences")
    if document.get("service_tier") == "standard_only":
        required.add("messages.service_tier")
    if tools := document.get("tools"):
        params["tools"] = [_tool(f"tools[{n}]", tool, required) for n, tool in enumerate(tools)]
    if "tool_choice" in document:
        _tool_choice(document["tool_choice"], params)
    leave_out_tools(params)
    _reasoning(document, params, required)
    _format(document, params)
    return params, required


def _tool(path: str, tool: Mapping[str, Any], required: set[str]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        if not isinstance(kind, str) or not kind.startswith(_CLIENT_TOOLS):
            raise InvalidRequest(
                f"'{path}.type': {kind!r} runs at the server, and server tools are not offered",
                f"{path}.type",
                "unsupported",
            )
        required.add("messages.tools")
        cacheable(path, tool)
        return dict(tool)
    _TOOL(path, tool)
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {k: tool[k] for k in ("description", "strict") if tool.get(k) is not None}
    return {"type": "function", "function": function, **cacheable(path, tool)}


def _tool_choice(choice: Mapping[str, Any], params: dict[str, Any]) -> None:
    kind = choice["type"]
    if kind == "tool":
        checks.text("tool_choice.name", choice.get("name"))
        params["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    else:
        checks.one_of("auto", "any", "tool", "none")("tool_choice.type", kind)
        params["tool_choice"] = "required" if kind == "any" else kind
    alone = choice.get("disable_parallel_tool_use")
    if alone is not None:
        checks.boolean("tool_choice.disable_parallel_tool_use", alone)
        if alone:
            params["parallel_tool_calls"] = False


def _reasoning(document: Mapping[str, Any], params: dict[str, Any], required: set[str]) -> None:
    """Read ``thinking`` and ``output_config.effort``, which other wires know as one."""
    thinking = document.get("thinking", {})
    effort = document.get("output_config", {}).get("effort")
    if effort is not None:
        checks.one_of(*_EFFORTS)("output_config.effort", effort)
    reasoning: dict[str, Any] = {}
    kind = thinking.get("type")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        checks.integer(1024)("thinking.budget_tokens", budget)
        if budget >= document.get("max_tokens", budget + 1):
            where = "thinking.budget_tokens"
            raise InvalidRequest(f"{where!r} must be less than 'max_tokens'", where)
        reasoning = {"max_tokens": budget}
    elif kind == "disabled":
        reasoning = {"enabled": False}
    elif kind is not None:
        checks.one_of("enabled", "disabled", "adaptive", "between_tools")("thinking.type", kind)
        reasoning = {"enabled": True}
        if kind == "between_tools":
            required.add("messages.thinking")
    if thinking.get("display") not in (None, "summarized"):
        required.add("messages.thinking")
    if effort is not None:
        if kind in (None, "adaptive"):
            reasoning = {**reasoning, "effort": effort}
        else:  # how much is said, beside how much is thought: no other wire has both
            required.add("messages.output_config")
    if reasoning:
        params["reasoning"] = reasoning


def _format(document: Mapping[str, Any], params: dict[str, Any]) -> None:
    config = document.get("output_config", {})
    for name in config:
        if name not in ("effort", "format"):
            where = f"output_config.{name}"
            raise InvalidRequest(f"unknown field {where!r}", where, "unknown_parameter")
    wanted, where = config.get("format"), "output_config.format"
    if wanted is None:  # the name of the same in its beta
        wanted, where = document.get("output_format"), "output_format"
    if wanted is None:
        return
    checks.typed_object(where, wanted)
    checks.one_of("json_schema")(f"{where}.type", wanted["type"])
    checks.mapping(f"{where}.schema", wanted.get("schema"))
    schema = {"name": "response", "schema": wanted["schema"], "strict": True}
    params["response_format"] = {"type": "json_schema", "json_schema": schema}


def _added(params: Mapping[str, Any], reader: Reader) -> int:
    """Return how many tokens Anthropic may add to the prompt."""
    tools = params.get("tools", ())
    own = sum(1 for tool in tools if tool["type"] != "function")
    return own * _CLIENT_TOOL_BYTES + (_DOCUMENT_BYTES if reader.documents else 0)
