"""Anthropic Messages requests, as its servers get them (Anthropic, Vertex AI, Bedrock invoke).

Source: the Messages reference and the types of Anthropic's SDK 2.12 (read 2026-11); the
ratios of reasoning effort are OpenRouter's. A client's own document goes on as it is; the
canonical request is translated. Adapters set what their address wants: ``anthropic_version``
in the body, no ``model``, no ``stream``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.custom_tools import chosen_function, function_of
from backends.wire.details import ANTHROPIC, merge_details
from backends.wire.messages_blocks import unwrap

MESSAGES_FIELDS: Final = frozenset({
    "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "stop", "tools",
    "tool_choice", "parallel_tool_calls", "reasoning", "reasoning_effort", "response_format",
    "cache_control", "image_url", "file",
    "messages.citations", "messages.output_config", "messages.search_result",
    "messages.service_tier", "messages.stop_sequences", "messages.thinking", "messages.tools",
})  # fmt: skip
"""What an endpoint of this wire can honor."""

MIN_BUDGET: Final = 1024
MAX_BUDGET: Final = 128_000
_RATIOS: Final[Mapping[str, float]] = {
    "max": 0.95, "xhigh": 0.95, "high": 0.8, "medium": 0.5, "low": 0.2, "minimal": 0.1,
}  # fmt: skip
_DEFAULT_OUTPUT: Final = 4096
"""The limit where nobody says one: Anthropic has no default."""

_OURS: Final = (
    "models", "fallbacks", "provider", "plugins", "session_id", "trace", "user", "metadata",
    "output_format", "mcp_servers", "speed",
)  # fmt: skip
"""Fields of a client's document that do not travel (in this form)."""

_NATIVE: Final[Mapping[str, str]] = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "stop_sequences": "stop",
    "tools": "tools", "tool_choice": "tool_choice", "thinking": "reasoning",
    "cache_control": "cache_control",
}  # fmt: skip
"""Fields of a client's document, and the canonical name under which an endpoint may lack them."""

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,", re.ASCII)
_ID: Final = re.compile(r"[^a-zA-Z0-9_-]")


def encode_request(
    request: ChatRequest, *, model: str, options_key: str = "", adaptive: bool = False
) -> dict[str, Any]:
    """Return the body for an upstream that speaks Anthropic's Messages: streamed.

    Args:
        request: with ``params`` narrowed to what the endpoint honors, and ``output_bound`` set.
        model: the upstream's model name.
        options_key: the slug of ``provider.options`` meant for this endpoint.
        adaptive: the model takes a level of effort instead of a budget of thinking tokens.

    Raises:
        Unsupported: this wire cannot say what is asked, with the words for the client.
    """
    limit = request.output_bound or request.max_tokens or _DEFAULT_OUTPUT
    native = request.native
    if native is not None and native.wire == "messages":
        body = _own(native.body, request.params)
    else:
        body = _translated(request, limit, adaptive=adaptive)
    body |= {"model": model, "max_tokens": limit}
    body["stream"] = True
    vendor_options.add(body, request, options_key)
    return body


def _own(document: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a client's document without what is the gateway's or was dropped."""
    body = {
        name: value
        for name, value in document.items()
        if name not in _OURS and (name not in _NATIVE or _NATIVE[name] in params)
    }
    body["messages"] = [_own_message(message) for message in document["messages"]]
    if body.get("service_tier") == "auto":
        del body["service_tier"]
    config = dict(document.get("output_config", {}))
    if wanted := document.get("output_format"):
        config.setdefault("format", wanted)
    if "reasoning" not in params:
        config.pop("effort", None)
    if "response_format" not in params:
        config.pop("format", None)
    body.pop("output_config", None)
    if config:
        body["output_config"] = config
    choice = body.get("tool_choice")
    if choice is not None and "parallel_tool_calls" not in params:
        body["tool_choice"] = {
            k: v for k, v in choice.items() if not (k == "disable_parallel_tool_use" and v)
        }
    return body


def _own_message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what came from another wire, through us, and Anthropic refuses.

    That is reasoning that is not its own, and text without words, which only held citations.
    """
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return message
    kept = [
        block
        for block in content
        if not (block["type"] == "thinking" and not block.get("signature"))
        and not (block["type"] == "redacted_thinking" and unwrap(block["data"]) is not None)
        and not (block["type"] == "text" and not block["text"])
    ]
    return message if len(kept) == len(content) else {**message, "content": kept}


def _translated(request: ChatRequest, limit: int, *, adaptive: bool) -> dict[str, Any]:
    params = request.params
    body: dict[str, Any] = {}
    system, messages = _conversation(request.messages)
    if system:
        body["system"] = system
    body["messages"] = messages
    for name in ("temperature", "top_p", "cache_control"):
        if name in params:
            body[name] = params[name]
    if params.get("temperature", 0) > 1:
        raise Unsupported("'temperature' must be at most 1 at this endpoint")
    if params.get("top_k", 0) > 0:
        body["top_k"] = params["top_k"]
    if request.stop and "stop" in params:
        body["stop_sequences"] = list(request.stop)
    _tools(params, body)
    _thinking(params, limit, body, adaptive=adaptive)
    _format(params.get("response_format"), body)
    _cached(body.get("cache_control"))
    return body


def _conversation(
    messages: tuple[dict[str, Any], ...],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the system prompt, and turns of user and assistant that alternate.

    Only the newest models take a system message amid the conversation, so all go to its head.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        if role in ("system", "developer"):
            system += _blocks(message.get("content"))
            continue
        if role == "assistant":
            blocks = _assistant(message)
        elif role == "tool":
            role, blocks = "user", [_result(message)]
        else:
            blocks = _blocks(message.get("content"))
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _assistant(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        *_thoughts(message.get("reasoning_details")),
        *_blocks(message.get("content")),
        *(_use(call) for call in message.get("tool_calls") or ()),
    ]


def _thoughts(details: Any) -> list[dict[str, Any]]:
    """Return the reasoning that Anthropic signed or encrypted; it wants no other back."""
    whole: list[Any] = []
    merge_details(whole, details if isinstance(details, list) else ())
    blocks = []
    for detail in whole:
        if not isinstance(detail, dict) or detail.get("format") != ANTHROPIC:
            continue
        if detail.get("type") == "reasoning.encrypted" and detail.get("data"):
            blocks.append({"type": "redacted_thinking", "data": detail["data"]})
        elif detail.get("type") == "reasoning.text" and detail.get("signature"):
            thought = {"type": "thinking", "thinking": detail.get("text") or ""}
            blocks.append({**thought, "signature": detail["signature"]})
    return blocks


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = function_of(call)
    return {
        "type": "tool_use",
        "id": _call_id(call.get("id")),
        "name": function["name"],
        "input": call_input(function.get("arguments") or ""),
    }


def call_input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as the object that this wire wants, whatever they are."""
    if not arguments.strip():
        return {}
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        found = arguments  # cut off by a limit, or never JSON
    return found if isinstance(found, dict) else {"arguments": found}


def _call_id(name: Any) -> str:
    """Return an id of the letters that Anthropic takes; the same for a call and its result."""
    return _ID.sub("_", str(name))


def _result(message: Mapping[str, Any]) -> dict[str, Any]:
    blocks = _blocks(message.get("content"))
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": _call_id(message["tool_call_id"]),
        "content": blocks,
    }
    for inner in blocks:  # a breakpoint stands on the result as a whole
        if control := inner.pop("cache_control", None):
            block["cache_control"] = control
    if isinstance(message.get("content"), str):
        block["content"] = message["content"]
    if message.get("is_error"):
        block["is_error"] = True
    return block


def _blocks(content: Any) -> list[dict[str, Any]]:
    """Return a content's blocks; empty texts are left out, as Anthropic refuses them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = []
    for part in content or ():
        block = _block(part)
        if block is not None:
            if control := part.get("cache_control"):
                block["cache_control"] = _cached(control)
            blocks.append(block)
    return blocks


def _block(part: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = part["type"]
    if kind in ("text", "refusal"):
        return {"type": "text", "text": part[kind]} if part[kind] else None
    if kind == "image_url":
        return {"type": "image", "source": _source(part[kind].get("url"), "an image")}
    if kind == "file":
        return _document(part[kind])
    raise Unsupported(f"parts of type {kind!r} cannot be sent to this endpoint")


def _document(file: Mapping[str, Any]) -> dict[str, Any]:
    source = _source(file.get("file_url") or file.get("file_data"), "a file")
    if source.get("media_type") == "text/plain":
        try:
            text = base64.b64decode(source["data"], validate=True).decode()
        except ValueError:  # of base64 or of UTF-8
            raise Unsupported("a file of text must be base64 of UTF-8") from None
        source = {"type": "text", "media_type": "text/plain", "data": text}
    name = file.get("filename")
    title = {"title": name} if isinstance(name, str) and name else {}
    return {"type": "document", "source": source, **title}


def _source(url: Any, what: str) -> dict[str, Any]:
    """Return where an image or a document is: in the URL itself, or for Anthropic to fetch."""
    if isinstance(url, str) and url.startswith("https://"):
        return {"type": "url", "url": url}
    found = _DATA_URL.match(url) if isinstance(url, str) else None
    if found is None or found[1] is None:
        raise Unsupported(
            f"{what} must be an https: URL, or a data: URL with a media type and base64"
        )
    assert isinstance(url, str)
    return {"type": "base64", "media_type": found[1], "data": url[found.end() :]}


def _cached(control: Any) -> Any:
    if isinstance(control, dict) and control.get("ttl") not in (None, "5m"):
        raise Unsupported("'cache_control.ttl' must be '5m': a longer one is not offered")
    return control


def _tools(params: Mapping[str, Any], body: dict[str, Any]) -> None:
    tools = [_tool(tool) for tool in params.get("tools") or ()]
    if not tools:
        return
    body["tools"] = tools
    choice = params.get("tool_choice")
    chosen: dict[str, Any] = {"type": "auto"}
    if isinstance(choice, dict):
        chosen = {"type": "tool", "name": chosen_function(choice)}
    elif choice in ("required", "none"):
        chosen = {"type": "any" if choice == "required" else "none"}
    if params.get("parallel_tool_calls") is False and choice != "none":
        chosen["disable_parallel_tool_use"] = True
    if choice is not None or len(chosen) > 1:
        body["tool_choice"] = chosen


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise Unsupported(f"tools of type {tool['type']!r} are not offered at this endpoint")
    function = tool["function"]
    made: dict[str, Any] = {"name": function["name"]}
    if function.get("description"):
        made["description"] = function["description"]
    made["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict"):
        made["strict"] = True
    if control := tool.get("cache_control"):
        made["cache_control"] = _cached(control)
    return made


def _thinking(
    params: Mapping[str, Any], limit: int, body: dict[str, Any], *, adaptive: bool
) -> None:
    reasoning = params.get("reasoning") or {}
    effort = reasoning.get("effort") or params.get("reasoning_effort")
    budget = reasoning.get("max_tokens")
    if effort == "none" or reasoning.get("enabled") is False:
        body["thinking"] = {"type": "disabled"}
        return
    if effort is None and budget is None and not reasoning.get("enabled"):
        return
    if adaptive:
        body["thinking"] = {"type": "adaptive"}
        if effort is not None:
            body["output_config"] = {"effort": "low" if effort == "minimal" else effort}
    else:
        body["thinking"] = {"type": "enabled", "budget_tokens": _budget(effort, budget, limit)}
    if reasoning.get("exclude"):
        body["thinking"]["display"] = "omitted"


def _budget(effort: Any, budget: Any, limit: int) -> int:
    """Return the tokens that may be thought: a part of the limit, which includes them."""
    wanted = min(int(limit * _RATIOS.get(effort or "medium", 0.5)), MAX_BUDGET)
    wanted = max(budget if isinstance(budget, int) else wanted, MIN_BUDGET)
    if wanted >= limit:
        raise Unsupported(
            f"reasoning of {wanted} tokens does not fit: 'max_tokens' ({limit}) must be above it"
        )
    return wanted


def _format(wanted: Any, body: dict[str, Any]) -> None:
    if not isinstance(wanted, dict) or wanted.get("type") == "text":
        return
    schema = (wanted.get("json_schema") or {}).get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise Unsupported("'response_format' must be of type 'json_schema' at this endpoint")
    config = body.setdefault("output_config", {})
    config["format"] = {"type": "json_schema", "schema": schema}
