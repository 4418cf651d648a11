"""Anthropic Messages answers, as our clients get them: events in, bytes out.

Blocks never interleave: an event of another kind closes the open block, and pieces of a second
tool call wait until the first is complete. ``usage`` has OpenRouter's ``cost`` beside
Anthropic's counts. Source: the Messages streaming reference and the types of Anthropic's SDK
2.12 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from backends.collect import ChatAnswer, Choice
from backends.types import (
    AnnotationDelta,
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from backends.wire.calls import is_whole
from backends.wire.details import ANTHROPIC
from backends.wire.messages_blocks import wrap
from backends.wire.messages_upstream import call_input
from backends.wire.openai_reply import usage_body

_OWN_WORDS: Final = frozenset({
    "end_turn", "max_tokens", "stop_sequence", "pause_turn", "refusal",
    "model_context_window_exceeded",
})  # fmt: skip
_WORDS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "error": "end_turn",
}
ERROR_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Other statuses: ``invalid_request_error`` below 500, ``api_error`` from there."""

_END: Final[Mapping[str, Any]] = {"stop_reason": None, "stop_sequence": None}
_BYTES_PER_TOKEN: Final = 4
_encode: Final = msgspec.json.Encoder().encode


def input_estimate(request: ChatRequest) -> int:
    """Return about how many tokens a request's texts and tools are: bytes / 4."""
    tools = request.params.get("tools")
    size = request.content_bytes + (len(_encode(tools)) if tools else 0)
    return size // _BYTES_PER_TOKEN


class MessagesEncoder:
    """Writes one answer as server-sent events."""

    def __init__(self, head: AnswerHead, request: ChatRequest) -> None:
        """Prepare; ``request`` gives the estimate of its input."""
        self._head = head
        self._request = request
        self._index = -1
        """Of the block that is open, or was last."""
        self._kind = ""
        """Of the open block; empty where none is open."""
        self._text = b""
        """What precedes the text of a delta of the open block."""
        self._cited = False
        self._call = -1
        """The position of the call that is open."""
        self._said: list[str] = []
        """Its arguments so far."""
        self._waiting: dict[int, list[Delta]] = {}
        """Blocks that wait for the open call's end: of calls by position, others below 0."""

    def open(self) -> bytes:
        """Return the start of the message, with an estimate of what it costs to read."""
        usage = {"input_tokens": input_estimate(self._request), "output_tokens": 0}
        message = {**_head_fields(self._head), "content": [], **_END, "usage": usage}
        return _event("message_start", {"message": message})

    def delta(self, event: Delta) -> bytes:
        """Return what one event becomes."""
        if self._kind == "text" and type(event) is TextDelta and not self._cited:
            return b"".join((self._text, _encode(event.text), b"}}\n\n"))
        if self._kind != "tool_use" or self._is_of_the_call(event):
            return self._write(event)
        if not self._waiting and is_whole(self._said):
            return self._write(event)
        self._wait(event)
        return b""

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the end of the open block and of the message."""
        rest = self._release() + self._close()
        delta, more = _end_fields(finish.choices, finish.extras)
        end: dict[str, Any] = {"delta": delta, "usage": _usage_body(usage, cost)}
        if more:
            end["provider_extras"] = {self._head.provider: more}
        return rest + _event("message_delta", end) + _event("message_stop", {})

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the event that ends a message which failed. No ``message_stop`` follows it."""
        body = _error_body(error)
        if usage is not None and cost is not None:
            body["usage"] = _usage_body(usage, cost)
        return self._release() + _event("error", body)

    def waiting(self) -> list[Delta]:
        """Return what waits for the open call's end."""
        return list(chain.from_iterable(self._waiting.values()))

    def _is_of_the_call(self, event: Delta) -> bool:
        return isinstance(event, ToolCallDelta) and event.call_index == self._call

    def _wait(self, event: Delta) -> None:
        if isinstance(event, ToolCallDelta):
            key = event.call_index
        else:
            last = next(reversed(self._waiting), 0)
            key = last if last < 0 else -1 - len(self._waiting)
        self._waiting.setdefault(key, []).append(event)

    def _release(self) -> bytes:
        """Write the blocks that waited, one after another."""
        waiting, self._waiting = self._waiting, {}
        return b"".join([self._write(event) for events in waiting.values() for event in events])

    def _write(self, event: Delta) -> bytes:
        match event:
            case TextDelta() | RefusalDelta():
                start = b"" if self._kind == "text" and not self._cited else self._begin_text()
                return start + self._text + _encode(event.text) + b"}}\n\n"
            case ReasoningDelta():
                return self._reasoning(event)
            case ToolCallDelta():
                return self._tool(event)
            case AnnotationDelta():
                return self._cite(event.annotations)
            case ImageDelta():
                return self._whole(image_block(event.url))
            case _:
                raise AssertionError("a vector is no answer of a chat")

    def _begin(self, kind: str, block: Mapping[str, Any]) -> bytes:
        closed = self._close()
        self._index += 1
        self._kind = kind
        return closed + _event(
            "content_block_start", {"index": self._index, "content_block": block}
        )

    def _begin_text(self) -> bytes:
        started = self._begin("text", {"type": "text", "text": ""})
        whole = self._part({"type": "text_delta", "text": ""})
        self._text = whole.removesuffix(b'""}}\n\n')
        return started

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind, self._cited = "", False
        return _event("content_block_stop", {"index": self._index})

    def _part(self, delta: Mapping[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def _whole(self, block: Mapping[str, Any]) -> bytes:
        """Return a block that comes at once."""
        return self._begin("whole", block) + self._close()

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        data = b""
        if event.text:
            if self._kind != "thinking":
                data = self._begin_thinking()
            data += self._part({"type": "thinking_delta", "thinking": event.text})
        for detail in event.details if isinstance(event.details, list) else ():
            block = _carried(detail)
            if block is None:
                continue
            if block["type"] == "redacted_thinking":
                data += self._whole(block)
                continue
            if self._kind != "thinking":
                data += self._begin_thinking()
            data += self._part({"type": "signature_delta", "signature": block["signature"]})
            data += self._close()
        return data

    def _begin_thinking(self) -> bytes:
        return self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})

    def _tool(self, event: ToolCallDelta) -> bytes:
        data = b""
        if event.call_index != self._call:
            opened = {"type": "tool_use", "id": event.id, "name": event.name}
            data = self._begin("tool_use", {**opened, "input": {}})
            self._call, self._said = event.call_index, []
        if event.arguments and self._kind == "tool_use":
            self._said.append(event.arguments)
            data += self._part({"type": "input_json_delta", "partial_json": event.arguments})
        return data

    def _cite(self, annotations: Iterable[Any]) -> bytes:
        data = b"" if self._kind == "text" else self._begin_text()
        for annotation in annotations:
            delta = {"type": "citations_delta", "citation": _citation(annotation)}
            data += self._part(delta)
        self._cited = True  # text from here on is of another block
        return data


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer."""
    del request
    choice = answer.choices[0] if answer.choices else Choice(0)
    end = ChoiceEnd(choice.index, choice.reason, choice.raw_reason)
    delta, more = _end_fields((end,), answer.extras)
    body = {**_head_fields(head), "content": _content(choice), **delta}
    body["usage"] = _usage_body(usage, cost)
    if more:
        body["provider_extras"] = {head.provider: more}
    return _encode(body)


def encode_error(error: Mapping[str, Any]) -> bytes:
    """Return the body of an error answer."""
    return _encode({"type": "error", **_error_body(error)})


def image_block(url: str) -> dict[str, Any]:
    """Return an image that a model made; this wire itself has only those of prompts."""
    head, _, data = url.partition(";base64,")
    if data and head.startswith("data:"):
        source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    else:
        source = {"type": "url", "url": url}
    return {"type": "image", "source": source}


def _event(kind: str, rest: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **rest}))


def _head_fields(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "provider": head.provider,
    }


def _end_fields(
    ends: tuple[ChoiceEnd, ...], extras: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a message ended, and those extras that have no place in it."""
    end = ends[0]
    raw = end.raw_reason.lower()
    own = raw in _OWN_WORDS and end.reason != "tool_calls"
    more = dict(extras or {})
    sequence = more.pop("stop_sequence", None)
    delta = {"stop_reason": raw if own else _WORDS[end.reason], "stop_sequence": sequence}
    if (details := more.pop("stop_details", None)) is not None:
        delta["stop_details"] = details
    return delta, more


def _usage_body(usage: Usage, cost: Cost) -> dict[str, Any]:
    """Return Anthropic's counts, in which cached tokens stand apart, and the cost."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    body: dict[str, Any] = {
        "input_tokens": max(usage.prompt_tokens - (cached or 0) - (written or 0), 0),
        "output_tokens": usage.completion_tokens,
    }
    if cached is not None:
        body["cache_read_input_tokens"] = cached
    if written is not None:
        body["cache_creation_input_tokens"] = written
    if usage.reasoning_tokens is not None:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    money = usage_body(usage, cost)
    return body | {name: money[name] for name in ("cost", "is_byok", "cost_details")}


def _error_body(error: Mapping[str, Any]) -> dict[str, Any]:
    status = error["code"]
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    metadata = error.get("metadata") or {}
    body = {"type": kind, "message": error["message"], "error_type": metadata.get("error_type")}
    if error.get("param") is not None:
        body["param"] = error["param"]
    if rest := {name: value for name, value in metadata.items() if name != "error_type"}:
        body["metadata"] = rest
    return {"error": body}


def _carried(detail: Any) -> dict[str, Any] | None:
    """Return the block or the signature that hands a detail back; None for plain text."""
    if not isinstance(detail, dict) or not (detail.get("signature") or detail.get("data")):
        return None
    if detail.get("format") != ANTHROPIC:
        return {"type": "redacted_thinking", "data": wrap(detail)}
    if detail.get("signature"):
        return {"type": "thinking", "signature": detail["signature"]}
    return {"type": "redacted_thinking", "data": detail["data"]}


def _citation(annotation: Any) -> Any:
    """Return a citation of this wire: the one that there was, or OpenAI's in its shape."""
    if not isinstance(annotation, dict) or isinstance(annotation.get("citation"), dict):
        return annotation["citation"] if isinstance(annotation, dict) else annotation
    shown = annotation.get("url_citation")
    if not isinstance(shown, dict):
        return annotation
    return {
        "type": "web_search_result_location",
        "url": shown.get("url") or "",
        "title": shown.get("title"),
        "cited_text": shown.get("content") or "",
        "encrypted_index": "",
    }


def _content(choice: Choice) -> list[dict[str, Any]]:
    blocks = _thoughts(choice)
    if text := choice.text + choice.refusal:
        block: dict[str, Any] = {"type": "text", "text": text}
        if choice.annotations:
            block["citations"] = [_citation(entry) for entry in choice.annotations]
        blocks.append(block)
    blocks += [image_block(url) for url in choice.images]
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call_input(call.arguments)}
        for call in choice.calls
    ]
    return blocks


def _thoughts(choice: Choice) -> list[dict[str, Any]]:
    """Return the reasoning: block by block where its details say so, else as one."""
    blocks: list[dict[str, Any]] = []
    for detail in choice.details:
        carried = _carried(detail)
        text = (detail.get("text") or detail.get("summary")) if isinstance(detail, dict) else None
        if carried is not None and carried["type"] == "thinking":
            blocks.append({**carried, "thinking": text or ""})
            continue
        if isinstance(text, str) and text:
            blocks.append({"type": "thinking", "thinking": text, "signature": ""})
        if carried is not None:
            blocks.append(carried)
    if choice.reasoning and not any(block.get("thinking") for block in blocks):
        blocks.insert(0, {"type": "thinking", "thinking": choice.reasoning, "signature": ""})
    return blocks
