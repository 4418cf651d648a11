"""Requests to Bedrock's Converse: the canonical request in, its body out.

Source: "Converse" in the API reference of Amazon Bedrock Runtime, and its service model
(botocore 1.44.5, read 2026-11). Media travel as bytes: Converse takes no URL but an address in
S3, which it would read with our own credentials, so none of a caller's is passed on.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from backends.errors import Unsupported
from backends.types import ChatRequest
from backends.wire import vendor_options
from backends.wire.custom_tools import chosen_function, function_of
from backends.wire.details import ANTHROPIC, merge_details

FIELDS: Final = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "response_format",
        "image_url",
        "input_audio",
        "video_url",
        "file",
    }
)
"""What Converse expresses for every model."""

ANTHROPIC_FIELDS: Final = frozenset({"top_k", "reasoning", "reasoning_effort"})
"""What Anthropic's models take beside it, in ``additionalModelRequestFields``."""

CALLER_KEYS: Final = frozenset({"additionalModelResponseFieldPaths", "requestMetadata"})
"""Of Converse's own keys those that callers may set: they change neither bound nor price."""

MIN_THINKING_TOKENS: Final = 1024
_DEFAULT_OUTPUT: Final = 4096
_EFFORTS: Final[Mapping[str, float]] = {
    "max": 0.95,
    "xhigh": 0.95,
    "high": 0.8,
    "medium": 0.5,
    "low": 0.2,
    "minimal": 0.1,
}
"""The part of the output bound that an effort allows for thinking (OpenRouter's figures)."""

_IMAGES: Final = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg"} | {
    f"image/{name}": name for name in ("gif", "webp")
}
_VIDEOS: Final = {f"video/{name}": name for name in ("mp4", "webm", "mpeg", "mpg")} | {
    "video/quicktime": "mov",
    "video/x-matroska": "mkv",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_DOCUMENTS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}spreadsheetml.sheet": "xlsx",
}
_DATA_URL: Final = re.compile(r"data:([\w.+/-]*)[^,]*;base64,", re.ASCII)
_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}", re.ASCII)
_MOST_NAME_CHARS: Final = 180


def maker_of(model: str) -> str:
    """Return who made a model, as its id or ARN says; empty where it says nothing we use."""
    name = model.rsplit("/", 1)[-1]
    return next((v for v in ("anthropic", "amazon") if v in name.split(".")), "")


def encode_request(
    request: ChatRequest,
    *,
    model: str,
    options_key: str = "",
    maker: str = "",
    adaptive: bool = False,
) -> dict[str, Any]:
    """Return the body of ``converse`` and ``converse-stream``; the URL says which.

    Args:
        request: with ``params`` narrowed to what the endpoint honors, and ``output_bound`` set
            if an output limit has to be sent.
        model: the upstream's model id, which stands in the URL.
        options_key: the slug of ``provider.options`` meant for this endpoint.
        maker: who made the model, where its id does not say so.
        adaptive: Anthropic's model takes a level of effort instead of a budget of tokens.

    Raises:
        Unsupported: something cannot be said in this wire.
    """
    maker = maker or maker_of(model)
    params = request.params
    turns = _Turns(caches=bool(maker))
    for message in request.messages:
        turns.add(message)
    body: dict[str, Any] = {"messages": turns.messages}
    if turns.system:
        body["system"] = turns.system
    inference = {
        "maxTokens": request.output_bound,
        "temperature": params.get("temperature"),
        "topP": params.get("top_p"),
        "stopSequences": list(request.stop) if params.get("stop") else None,
    }
    if inference := {name: value for name, value in inference.items() if value is not None}:
        body["inferenceConfig"] = inference
    if tools := _tools(params, turns):
        body["toolConfig"] = tools
    if shape := _shape(params.get("response_format")):
        body["outputConfig"] = {"textFormat": shape}
    if maker == "anthropic":
        more: dict[str, Any] = {}
        if params.get("top_k", 0) > 0:
            more["top_k"] = params["top_k"]
        more |= _thinking(params, request.output_bound, adaptive=adaptive)
        if more:
            body["additionalModelRequestFields"] = more
    vendor_options.add(body, request, options_key, only=CALLER_KEYS)
    return body


class _Turns:
    """Messages as they come, joined so that user and assistant take turns."""

    def __init__(self, *, caches: bool) -> None:
        """``caches`` says that the model knows cache points; others refuse them."""
        self.messages: list[dict[str, Any]] = []
        self.system: list[dict[str, Any]] = []
        self.tools = False
        """Whether calls or their results were seen: then Converse demands the tools."""
        self._caches = caches
        self._names: set[str] = set()

    def add(self, message: Mapping[str, Any]) -> None:
        """Add one message; blank text is left out, as Converse refuses it."""
        role, blocks = message["role"], self._blocks(message.get("content"))
        if role in ("system", "developer"):
            self.system += blocks
            return
        if role == "tool":
            self.tools = True
            points = [block for block in blocks if "cachePoint" in block]
            result: dict[str, Any] = {
                "toolUseId": _call_id(message["tool_call_id"]),
                "content": [block for block in blocks if "cachePoint" not in block],
            }
            if message.get("is_error"):
                result["status"] = "error"
            role, blocks = "user", [{"toolResult": result}, *points]
        elif role == "assistant":
            calls = [_use(call) for call in message.get("tool_calls") or ()]
            self.tools = self.tools or bool(calls)
            blocks = [*_thoughts(message.get("reasoning_details")), *blocks, *calls]
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def point(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the cache point that a part, or a tool, asks for."""
        control = given.get("cache_control")
        if not isinstance(control, Mapping) or not self._caches:
            return []
        if control.get("ttl") not in (None, "5m"):
            raise Unsupported("'cache_control.ttl': this endpoint offers '5m' only")
        return [{"cachePoint": {"type": "default"}}]

    def _blocks(self, content: Any) -> list[dict[str, Any]]:
        if content is None or isinstance(content, str):
            return [{"text": content}] if content and content.strip() else []
        blocks: list[dict[str, Any]] = []
        for part in content:
            block = self._block(part)
            if block is not None:
                blocks += [block, *self.point(part)]
        return blocks

    def _block(self, part: Mapping[str, Any]) -> dict[str, Any] | None:
        match part["type"]:
            case "image_url":
                return {"image": _media(part, _IMAGES)}
            case "video_url":
                return {"video": _media(part, _VIDEOS)}
            case "input_audio":
                audio = part["input_audio"]
                source = {"bytes": audio.get("data", "")}
                return {"audio": {"format": audio.get("format", ""), "source": source}}
            case "file":
                return {"document": self._document(part["file"])}
            case kind:
                text = part.get(kind) or ""
                return {"text": text} if text.strip() else None

    def _document(self, file: Mapping[str, Any]) -> dict[str, Any]:
        if not file.get("file_data"):
            raise Unsupported("'file': this endpoint takes 'file_data' with a data: URL only")
        media, data = _data_url("file.file_data", file["file_data"])
        stem, dot, ending = str(file.get("filename") or "document").rpartition(".")
        title, ending = (stem, ending.lower()) if dot else (ending, "")
        form = _DOCUMENTS.get(media) or (ending if ending in _DOCUMENTS.values() else "txt")
        # Names may hold few characters, and none may come twice in a request.
        name = re.sub(r"[^A-Za-z0-9()\[\] -]", "-", title)
        name = plain = re.sub(r"\s+", " ", name).strip()[:_MOST_NAME_CHARS] or "document"
        number = 1
        while name in self._names:
            number += 1
            name = f"{plain} {number}"
        self._names.add(name)
        return {"format": form, "name": name, "source": {"bytes": data}}


def _tools(params: Mapping[str, Any], turns: _Turns) -> dict[str, Any] | None:
    """Return ``toolConfig``: the tools and how they may be chosen."""
    tools, choice = params.get("tools") or (), params.get("tool_choice")
    if choice == "none":
        if turns.tools:
            raise Unsupported("'tool_choice': with calls in the messages 'none' is not offered")
        return None  # a model that is shown no tools calls none
    specs: list[dict[str, Any]] = []
    for tool in tools:
        if tool["type"] != "function":
            raise Unsupported(f"'tools': the type {tool['type']!r} is not offered here")
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        spec: dict[str, Any] = {"name": function["name"], "inputSchema": {"json": schema}}
        if function.get("description"):
            spec["description"] = function["description"]
        if function.get("strict"):
            spec["strict"] = True
        specs += [{"toolSpec": spec}, *turns.point(tool)]
    if not specs:
        return None
    config: dict[str, Any] = {"tools": specs}
    if isinstance(choice, Mapping):
        config["toolChoice"] = {"tool": {"name": chosen_function(choice)}}
    elif choice is not None:
        config["toolChoice"] = {"any": {}} if choice == "required" else {"auto": {}}
    return config


def _shape(wanted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the structured output that ``response_format`` asks for."""
    if wanted is None or wanted["type"] == "text":
        return None
    given = wanted.get("json_schema")
    if wanted["type"] != "json_schema" or not isinstance(given, Mapping):
        raise Unsupported("'response_format': this endpoint takes 'json_schema' only")
    schema: dict[str, Any] = {"schema": msgspec.json.encode(given.get("schema") or {}).decode()}
    schema |= {name: given[name] for name in ("name", "description") if given.get(name)}
    return {"type": "json_schema", "structure": {"jsonSchema": schema}}


def _thinking(params: Mapping[str, Any], bound: int | None, *, adaptive: bool) -> dict[str, Any]:
    """Return what makes a model of Anthropic think, in their own fields."""
    wish = params.get("reasoning") or {}
    effort = wish.get("effort") or params.get("reasoning_effort")
    budget = wish.get("max_tokens")
    if effort == "none" or wish.get("enabled") is False:
        return {"thinking": {"type": "disabled"}}
    if not (effort or budget or wish.get("enabled")):
        return {}
    if adaptive:
        level = {"output_config": {"effort": "low" if effort == "minimal" else effort}}
        return {"thinking": {"type": "adaptive"}, **(level if effort else {})}
    limit = bound or _DEFAULT_OUTPUT
    tokens = max(budget or int(limit * _EFFORTS.get(effort or "medium", 0.5)), MIN_THINKING_TOKENS)
    if tokens >= limit:
        raise Unsupported(
            f"reasoning of {tokens} tokens does not fit: 'max_tokens' ({limit}) must be above it"
        )
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


def _thoughts(details: Any) -> Iterable[dict[str, Any]]:
    """Return the signed and the hidden thoughts of an earlier turn, as they were."""
    whole: list[Any] = []
    merge_details(whole, details if isinstance(details, list) else ())
    for entry in whole:
        if not isinstance(entry, Mapping) or entry.get("format") != ANTHROPIC:
            continue
        if entry.get("type") == "reasoning.encrypted" and isinstance(entry.get("data"), str):
            hidden = entry["data"].encode("latin-1", "replace")
            yield {"reasoningContent": {"redactedContent": base64.b64encode(hidden).decode()}}
        elif entry.get("type") == "reasoning.text" and entry.get("signature"):
            thought = {"text": entry.get("text") or "", "signature": entry["signature"]}
            yield {"reasoningContent": {"reasoningText": thought}}


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return an earlier call; arguments that are no object are kept as a text in one."""
    function = function_of(call)
    given = function.get("arguments") or "{}"
    try:
        given = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError):
        pass  # cut off by a limit, or never JSON
    if not isinstance(given, dict):
        given = {"arguments": function["arguments"]}
    use = {"toolUseId": _call_id(str(call.get("id"))), "name": function["name"] or "tool"}
    return {"toolUse": {**use, "input": given}}


def _call_id(given: str) -> str:
    """Return a call's id in the characters that Converse allows, the same one every time."""
    if _CALL_ID.fullmatch(given):
        return given
    return f"call_{hashlib.sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _media(part: Mapping[str, Any], formats: Mapping[str, str]) -> dict[str, Any]:
    kind = part["type"]
    media, data = _data_url(f"{kind}.url", part[kind].get("url"))
    if media not in formats:
        raise Unsupported(f"'{kind}.url': {media!r} is not one of {', '.join(formats)}")
    return {"format": formats[media], "source": {"bytes": data}}


def _data_url(path: str, url: Any) -> tuple[str, str]:
    """Return media type and base64 data of a ``data:`` URL."""
    match = _DATA_URL.match(url) if isinstance(url, str) else None
    if match is None:
        raise Unsupported(f"{path!r}: this endpoint takes data: URLs with base64 only")
    return match[1].lower(), url[match.end() :]
