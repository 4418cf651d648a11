"""Input items of OpenAI's Responses API, and the messages that they stand for.

What an assistant did is one message in the canonical shape, and a run of items on this wire:
reasoning, text, calls. (OpenAI's API reference, Responses input items, read 2026-11; ``format``
and ``signature`` of a reasoning item are OpenRouter's, from its SDK, 2026-10.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from backends.errors import Unsupported
from backends.wire import shapes
from backends.wire.checks import InvalidRequest, breakpoint_of, mapping, object_of, text
from backends.wire.custom_tools import function_of
from backends.wire.details import OPENAI, XAI, merge_details

UNKNOWN: Final = "unknown"
"""The ``format`` of reasoning that no vendor wants back."""

OWN_FORMATS: Final = frozenset({OPENAI, XAI, "azure-openai-responses-v1"})
"""Reasoning that was made on this wire, and is handed back on it."""

_ITEM: Final = object_of(
    {}, dict.fromkeys(("id", "format", "signature", "encrypted_content"), text)
)
"""What an encoder looks into of a reasoning item, beside its texts."""

_FORMS: Final[Mapping[Any, tuple[str, str]]] = {
    "function_call": ("function", "arguments"),
    "custom_tool_call": ("custom", "input"),
}
"""Of a call: its type in a message, and the name of what it says."""

_OUR_ID: Final = re.compile(r"^(rs|msg|fc|ctc|ig)_gen-")
_STATEFUL: Final = "nothing is stored here: send the item itself"
_SERVER: Final = "tools of a vendor are not offered here"

Messages = list[dict[str, Any]]


def is_ours(name: Any) -> bool:
    """Whether an item's id was made by our encoder, and means nothing to an upstream."""
    return isinstance(name, str) and _OUR_ID.match(name) is not None


def messages_of(given: Any) -> Messages:
    """Return the messages that ``input`` stands for: a text, or a list of items.

    Raises:
        InvalidRequest: an item is wrong or not offered.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("'input' must be a text or a list with at least one item", "input")
    messages: Messages = []
    for position, item in enumerate(given):
        path = f"input[{position}]"
        mapping(path, item)
        breakpoint_of(path, item)
        _take(messages, path, item)
    return [_tidy(message) for message in messages]


def _take(messages: Messages, path: str, item: Mapping[str, Any]) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    match kind:
        case "message":
            _message(messages, path, item)
        case "reasoning":
            _thought(_assistant(messages), path, item)
        case "function_call" | "custom_tool_call":
            form, said = _FORMS[kind]
            for name in ("call_id", "name", said):
                text(f"{path}.{name}", item.get(name))
            called = {"name": item["name"], said: item[said]}
            _assistant(messages)["tool_calls"].append(
                {"id": item["call_id"], "type": form, form: called}
            )
        case "function_call_output" | "custom_tool_call_output":
            text(f"{path}.call_id", item.get("call_id"))
            content = _content(f"{path}.output", item.get("output"))
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        case "image_generation_call":
            text(f"{path}.result", item.get("result"))
            url = item["result"]
            url = url if url.startswith(("http", "data:")) else f"data:image/png;base64,{url}"
            part = {"type": "image_url", "image_url": {"url": url}}
            _assistant(messages)["content"].append(part)
        case _:
            why = _STATEFUL if kind == "item_reference" or ("id" in item and not kind) else _SERVER
            where = f"{path}.type"
            raise InvalidRequest(f"{where!r}: {kind!r} is not offered; {why}", where, "unsupported")


def _assistant(messages: Messages) -> dict[str, Any]:
    """Return the assistant's message that is being put together."""
    if not messages or messages[-1]["role"] != "assistant":
        empty: dict[str, Any] = {"role": "assistant", "content": []}
        messages.append(empty | {"reasoning": "", "reasoning_details": [], "tool_calls": []})
    return messages[-1]


def _tidy(message: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an assistant's message does not have."""
    if message["role"] != "assistant":
        return message
    parts = message["content"]
    if not parts:
        message["content"] = None if message["tool_calls"] else ""
    elif len(parts) == 1 and parts[0]["type"] == "text":
        message["content"] = parts[0]["text"]
    return {name: value for name, value in message.items() if value or name == "content"}


def _message(messages: Messages, path: str, item: Mapping[str, Any]) -> None:
    role = item.get("role")
    if role not in ("user", "system", "developer", "assistant"):
        where = f"{path}.role"
        raise InvalidRequest(f"{where!r} must be one of user, assistant, system, developer", where)
    content = _content(f"{path}.content", item.get("content"))
    if role != "assistant":
        messages.append({"role": role, "content": content})
        return
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    _assistant(messages)["content"].extend(parts)


def _content(path: str, content: Any) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{path!r} must be a string or a list of parts", path)
    return [_part(f"{path}[{position}]", part) for position, part in enumerate(content)]


def _part(path: str, part: Any) -> dict[str, Any]:
    """Return a part of a message in the canonical shape."""
    mapping(path, part)
    breakpoint_of(path, part)
    kind = part.get("type")
    match kind:
        case "input_text" | "output_text" | "text":
            text(f"{path}.text", part.get("text"))
            made: dict[str, Any] = {"type": "text", "text": part["text"]}
        case "refusal":
            text(f"{path}.refusal", part.get("refusal"))
            made = {"type": "refusal", "refusal": part["refusal"]}
        case "input_image":
            if not isinstance(part.get("image_url"), str):
                where = f"{path}.image_url"
                raise InvalidRequest(f"{where!r} must be a URL; file stores are not offered", where)
            image = {"url": part["image_url"]}
            if part.get("detail") is not None:
                text(f"{path}.detail", part["detail"])
                image["detail"] = part["detail"]
            made = {"type": "image_url", "image_url": image}
        case "input_file":
            shapes.FILE(path, part)
            known = ("filename", "file_data", "file_url", "file_id")
            file = {name: part[name] for name in known if part.get(name) is not None}
            made = {"type": "file", "file": file}
        case "input_audio":
            shapes.AUDIO(f"{path}.input_audio", part.get("input_audio"))
            made = {"type": "input_audio", "input_audio": part["input_audio"]}
        case _:
            where = f"{path}.type"
            raise InvalidRequest(
                f"{where!r} must be one of input_text, input_image, input_file, input_audio, "
                "output_text, refusal",
                where,
            )
    if part.get("prompt_cache_breakpoint"):
        made["cache_control"] = {"type": "ephemeral"}
    return made


def _thought(message: dict[str, Any], path: str, item: Mapping[str, Any]) -> None:
    """Add a reasoning item to an assistant's message."""
    _ITEM(path, item)
    summary, content = item.get("summary") or [], item.get("content") or []
    for name, parts in (("summary", summary), ("content", content)):
        if not isinstance(parts, list):
            raise InvalidRequest(f"'{path}.{name}' must be a list", f"{path}.{name}")
        for position, part in enumerate(parts):
            mapping(f"{path}.{name}[{position}]", part)
            text(f"{path}.{name}[{position}].text", part.get("text"))
    message["reasoning"] += "".join(part["text"] for part in (*summary, *content))
    made = item.get("format") or OPENAI
    if made == UNKNOWN:
        return
    details: list[dict[str, Any]] = [
        *({"type": "reasoning.summary", "summary": part["text"]} for part in summary),
        *({"type": "reasoning.text", "text": part["text"]} for part in content),
    ]
    if item.get("signature"):
        if not content:
            details.append({"type": "reasoning.text", "text": ""})
        details[-1]["signature"] = item["signature"]
    if item.get("encrypted_content"):
        details.append({"type": "reasoning.encrypted", "data": item["encrypted_content"]})
    known: list[Any] = message["reasoning_details"]
    for detail in details:
        detail |= {"format": made, "index": len(known)}
        if item.get("id") and not is_ours(item["id"]):
            detail["id"] = item["id"]
        known.append(detail)


def items_of(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the items that stand for messages.

    Raises:
        Unsupported: a part cannot be said on this wire.
    """
    items: list[dict[str, Any]] = []
    custom: set[Any] = set()
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "tool":
            name = message["tool_call_id"]
            kind = "custom_tool_call_output" if name in custom else "function_call_output"
            items.append({"type": kind, "call_id": name, "output": _given(content)})
        elif role == "assistant":
            items += _thoughts(message.get("reasoning_details"))
            items += _said(content, message.get("refusal"))
            calls = [_call(call) for call in message.get("tool_calls") or ()]
            custom |= {call["call_id"] for call in calls if call["type"] == "custom_tool_call"}
            items += calls
        else:
            items.append({"type": "message", "role": role, "content": _given(content)})
    return items


def _given(content: Any) -> Any:
    """Return content of a user, a system or a tool."""
    if not isinstance(content, list):
        return content or ""
    return [_input_part(part) for part in content]


def _input_part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    match kind:
        case "text" | "refusal":
            return {"type": "input_text", "text": part[kind]}
        case "image_url":
            image = part["image_url"]
            detail = image.get("detail") or "auto"
            return {"type": "input_image", "image_url": image.get("url"), "detail": detail}
        case "file":
            return {"type": "input_file", **part["file"]}
        case _:
            raise Unsupported(f"a part of type {kind!r} cannot be sent to this endpoint")


def _said(content: Any, refusal: Any) -> list[dict[str, Any]]:
    """Return what an assistant said, as items."""
    if isinstance(content, str) and content and not refusal:
        return [{"type": "message", "role": "assistant", "content": content}]
    parts: list[dict[str, Any]] = []
    if isinstance(content, str) and content:
        content = [{"type": "text", "text": content}]
    for part in content or ():
        if part["type"] == "text":
            parts.append({"type": "output_text", "text": part["text"], "annotations": []})
        elif part["type"] == "refusal":
            parts.append({"type": "refusal", "refusal": part["refusal"]})
        else:
            kind = part["type"]
            raise Unsupported(
                f"an assistant's part of type {kind!r} cannot be sent to this endpoint"
            )
    if refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    return [{"type": "message", "role": "assistant", "content": parts}] if parts else []


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    if call.get("type") == "custom":
        return {"type": "custom_tool_call", "call_id": call.get("id") or "", **call["custom"]}
    function = function_of(call)
    return {
        "type": "function_call",
        "call_id": call.get("id") or "",
        "name": function["name"],
        "arguments": function.get("arguments") or "{}",
    }


def _thoughts(details: Any) -> list[dict[str, Any]]:
    """Return the reasoning items that were made on this wire, as they were.

    An item that holds only a summary is left out: without its encrypted part an upstream
    would look its id up, and nothing is stored there.
    """
    whole: list[Any] = []
    merge_details(whole, details if isinstance(details, list) else ())
    items: list[dict[str, Any]] = []
    for detail in whole:
        if not isinstance(detail, dict) or detail.get("format") not in OWN_FORMATS:
            continue
        name = detail.get("id")
        last = items[-1] if items else None
        if last is None or last.get("id") != name or "encrypted_content" in last:
            last = {"type": "reasoning", "summary": []} | ({"id": name} if name else {})
            items.append(last)
        if detail.get("type") == "reasoning.summary":
            last["summary"].append({"type": "summary_text", "text": detail.get("summary") or ""})
        elif detail.get("type") == "reasoning.text":
            part = {"type": "reasoning_text", "text": detail.get("text") or ""}
            last.setdefault("content", []).append(part)
        elif detail.get("type") == "reasoning.encrypted":
            last["encrypted_content"] = detail.get("data")
    return [item for item in items if "encrypted_content" in item or "content" in item]
