"""Five client dialects: how a client asks the same things in each, and what it reads.

Written from the vendors' descriptions of their APIs (read 2026-11), not from our codecs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PROMPT = "Say hello to the world, please."
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_FUNCTIONS = ("get_weather", "get_time")


@dataclass
class Seen:
    """What a client reads of an answer, in words that all dialects share."""

    text: str = ""
    reasoning: str = ""
    signatures: list[str] = field(default_factory=list)
    calls: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name and arguments by id, in the order in which they came."""

    finish: str | None = None
    """``stop``, ``tool_calls`` or another of the normalized reasons."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    error: str | None = None
    error_kind: str | None = None


@dataclass(frozen=True)
class Dialect:
    """One client dialect."""

    name: str
    path: str
    ask: Callable[[str, str], dict[str, Any]]
    """The body for a model and a scenario, without ``stream``."""

    read_whole: Callable[[dict[str, Any]], Seen]
    read_stream: Callable[[list[tuple[str, Any]]], Seen]
    """Takes the events: name (or an empty text) and decoded data."""

    scenarios: tuple[str, ...] = ("text", "tools", "reasoning")
    unknown_count: int | None = None
    """What stands for a count of details that nobody reported."""


def events(body: bytes) -> list[tuple[str, Any]]:
    """Cut a stream into names and data, in the plainest way; without ``[DONE]``."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields and fields["data"] != "[DONE]":
            found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


def _usage(seen: Seen, usage: dict[str, Any] | None, prompt: str, completion: str) -> None:
    if usage is None:
        return
    seen.prompt_tokens, seen.completion_tokens = usage[prompt], usage[completion]
    details = usage.get(f"{prompt}_details") or {}
    seen.cached_tokens, seen.cost = details.get("cached_tokens"), usage["cost"]


def _failed(seen: Seen, error: dict[str, Any]) -> Seen:
    seen.error, seen.error_kind = error["message"], error.get("type")
    return seen


def _ask_chat(model: str, scenario: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    if scenario == "tools":
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": name, "description": "d", "parameters": _SCHEMA},
            }
            for name in _FUNCTIONS
        ]
    return body | {"max_tokens": 500}


def _whole_chat(body: dict[str, Any]) -> Seen:
    seen = Seen()
    if "error" in body:
        return _failed(seen, body["error"])
    [choice] = body["choices"]
    message = choice["message"]
    seen.text, seen.reasoning = message["content"] or "", message.get("reasoning") or ""
    _details(seen, message.get("reasoning_details"))
    for call in message.get("tool_calls") or ():
        seen.calls[call["id"]] = (call["function"]["name"], call["function"]["arguments"])
    seen.finish = choice["finish_reason"]
    _usage(seen, body["usage"], "prompt_tokens", "completion_tokens")
    return seen


def _details(seen: Seen, details: list[dict[str, Any]] | None) -> None:
    for entry in details or ():
        if signature := entry.get("signature") or entry.get("data"):
            seen.signatures.append(signature)


def _stream_chat(documents: list[tuple[str, Any]]) -> Seen:
    seen, calls = Seen(), {}
    for _, chunk in documents:
        if "error" in chunk:
            _failed(seen, chunk["error"])
        [choice] = chunk["choices"]
        delta = choice["delta"]
        seen.text += delta.get("content") or ""
        seen.reasoning += delta.get("reasoning") or ""
        _details(seen, delta.get("reasoning_details"))
        for piece in delta.get("tool_calls") or ():
            call = calls.setdefault(piece["index"], ["", "", ""])
            function = piece["function"]
            call[0] += piece.get("id", "")
            call[1] += function.get("name", "")
            call[2] += function["arguments"]
        if seen.error is None:
            seen.finish = choice["finish_reason"] or seen.finish
        _usage(seen, chunk.get("usage"), "prompt_tokens", "completion_tokens")
    seen.calls = {name: (function, arguments) for name, function, arguments in calls.values()}
    return seen


def _ask_completion(model: str, scenario: str) -> dict[str, Any]:
    del scenario
    return {"model": model, "prompt": PROMPT, "max_tokens": 500}


def _whole_completion(body: dict[str, Any]) -> Seen:
    seen = Seen()
    if "error" in body:
        return _failed(seen, body["error"])
    assert body["object"] == "text_completion"
    [choice] = body["choices"]
    seen.text, seen.finish = choice["text"], choice["finish_reason"]
    _usage(seen, body["usage"], "prompt_tokens", "completion_tokens")
    return seen


def _stream_completion(documents: list[tuple[str, Any]]) -> Seen:
    seen = Seen()
    for _, chunk in documents:
        if "error" in chunk:
            _failed(seen, chunk["error"])
        for choice in chunk["choices"]:
            seen.text += choice["text"]
            if seen.error is None:
                seen.finish = choice["finish_reason"] or seen.finish
        _usage(seen, chunk.get("usage"), "prompt_tokens", "completion_tokens")
    return seen


def _ask_responses(model: str, scenario: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "input": PROMPT,
        "store": False,
        "max_output_tokens": 500,
    }
    if scenario == "tools":
        body["tools"] = [
            {
                "type": "function",
                "name": name,
                "description": "d",
                "parameters": _SCHEMA,
                "strict": False,
            }
            for name in _FUNCTIONS
        ]
    return body


def _whole_responses(body: dict[str, Any]) -> Seen:
    seen = Seen()
    if body.get("error"):
        return _failed(seen, body["error"])
    for item in body["output"]:
        if item["type"] == "message":
            seen.text += "".join(part["text"] for part in item["content"])
        elif item["type"] == "function_call":
            seen.calls[item["call_id"]] = (item["name"], item["arguments"])
        elif item["type"] == "reasoning":
            parts = (item.get("summary") or []) + (item.get("content") or [])
            seen.reasoning += "".join(part["text"] for part in parts)
            if signature := item.get("encrypted_content") or item.get("signature"):
                seen.signatures.append(signature)
    if body["status"] == "completed":
        seen.finish = "tool_calls" if seen.calls else "stop"
    _usage(seen, body["usage"], "input_tokens", "output_tokens")
    return seen


def _stream_responses(documents: list[tuple[str, Any]]) -> Seen:
    seen, open_item, numbers = Seen(), None, []
    for name, event in documents:
        assert name == event["type"]
        numbers.append(event["sequence_number"])
        match name:
            case "response.output_item.added":
                assert open_item is None, "an item begins before the last has ended"
                open_item = event["output_index"]
            case "response.output_item.done":
                assert open_item == event["output_index"]
                open_item = None
            case "response.output_text.delta":
                seen.text += event["delta"]
            case "response.completed":
                whole = _whole_responses(event["response"])
                assert whole.text == seen.text
                seen = whole
            case "response.failed":
                assert event["response"]["error"]["message"] == event["error"]["message"]
                _failed(seen, event["error"])
    assert numbers == sorted(set(numbers))
    return seen


def _ask_messages(model: str, scenario: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 500,
    }
    if scenario == "tools":
        body["tools"] = [
            {"name": n, "description": "d", "input_schema": _SCHEMA} for n in _FUNCTIONS
        ]
    return body


_STOPS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


def _whole_messages(body: dict[str, Any]) -> Seen:
    seen = Seen()
    if body["type"] == "error":
        return _failed(seen, body["error"])
    for block in body["content"]:
        if block["type"] == "text":
            seen.text += block["text"]
        elif block["type"] == "thinking":
            seen.reasoning += block["thinking"]
            seen.signatures += [block["signature"]] if block.get("signature") else []
        elif block["type"] == "redacted_thinking":
            seen.signatures.append(_inner(block["data"]))
        elif block["type"] == "tool_use":
            seen.calls[block["id"]] = (block["name"], json.dumps(block["input"]))
    seen.finish = _STOPS.get(body["stop_reason"])
    _messages_usage(seen, body["usage"])
    return seen


def _inner(data: str) -> str:
    """Return what another vendor wants back, which travels to these clients in an envelope."""
    mark, found, envelope = data.partition("tollway-reasoning:")
    if not found:
        return mark
    entry = json.loads(base64.b64decode(envelope))
    return str(entry.get("data") or entry.get("signature"))


def _messages_usage(seen: Seen, usage: dict[str, Any]) -> None:
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    seen.prompt_tokens = usage["input_tokens"] + (read or 0) + (written or 0)
    seen.cached_tokens, seen.completion_tokens = read, usage["output_tokens"]
    seen.cost = usage["cost"]


def _stream_messages(documents: list[tuple[str, Any]]) -> Seen:
    seen, message, blocks, open_block, ended = Seen(), None, {}, None, False
    for name, event in documents:
        assert name == event["type"]
        match name:
            case "message_start":
                assert message is None
                message = event["message"]
                assert message["usage"]["input_tokens"] >= 0
            case "content_block_start":
                assert open_block is None, "blocks interleave"
                open_block = event["index"]
                blocks[open_block] = event["content_block"] | {"json": ""}
            case "content_block_delta":
                assert event["index"] == open_block
                _grow(blocks[open_block], event["delta"])
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
            case "message_stop":
                ended = True
            case "error":
                _failed(seen, event["error"])
    if ended:
        assert open_block is None
        for block in blocks.values():
            if block["type"] == "tool_use":
                block["input"] = json.loads(block["json"] or "{}")
        return _whole_messages(message | {"content": list(blocks.values())})
    seen.text = "".join(b["text"] for b in blocks.values() if b["type"] == "text")
    return seen


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]


def _ask_embeddings(model: str, scenario: str) -> dict[str, Any]:
    del scenario
    return {"model": model, "input": ["one", "two"], "encoding_format": "float"}


def _whole_embeddings(body: dict[str, Any]) -> Seen:
    seen = Seen()
    if "error" in body:
        return _failed(seen, body["error"])
    seen.text = json.dumps([entry["embedding"] for entry in body["data"]])
    seen.finish, seen.prompt_tokens = "stop", body["usage"]["prompt_tokens"]
    return seen


def _no_stream(documents: list[tuple[str, Any]]) -> Seen:
    raise AssertionError("embeddings are never streamed")


CHAT = Dialect("chat", "/v1/chat/completions", _ask_chat, _whole_chat, _stream_chat)
COMPLETIONS = Dialect(
    "completions",
    "/v1/completions",
    _ask_completion,
    _whole_completion,
    _stream_completion,
    ("text",),
)
RESPONSES = Dialect(
    "responses",
    "/v1/responses",
    _ask_responses,
    _whole_responses,
    _stream_responses,
    unknown_count=0,  # the SDKs insist on a number
)
MESSAGES = Dialect("messages", "/v1/messages", _ask_messages, _whole_messages, _stream_messages)
EMBEDDINGS = Dialect(
    "embeddings", "/v1/embeddings", _ask_embeddings, _whole_embeddings, _no_stream, ("text",)
)
SPEAKING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
