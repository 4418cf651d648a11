"""Anthropic Messages answers, as our clients get them: events in, bytes out.

``usage`` has OpenRouter's ``cost`` beside Anthropic's counts. Source: the Messages streaming
reference and the types of Anthropic's SDK 2.12 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from backends.collect import ChatAnswer, Choice
from backends.types import (
    AnswerHead,
    ChatRequest,
    ChoiceEnd,
    Cost,
    Delta,
    Finish,
    TextDelta,
    Usage,
)
from backends.wire.messages_content import Blocks, Content, Told
from backends.wire.openai_reply import usage_body

_OWN_WORDS: Final = frozenset({
    "end_turn", "max_tokens", "stop_sequence", "pause_turn", "compaction", "refusal",
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
    return (request.content_bytes + request.tools_bytes) // _BYTES_PER_TOKEN


class MessagesEncoder:
    """Writes one answer as server-sent events."""

    def __init__(self, head: AnswerHead, request: ChatRequest) -> None:
        """Prepare; ``request`` gives the estimate of its input."""
        self._head = head
        self._request = request
        self._blocks = Blocks()
        self._choice = -1
        """The one that is written: the first that spoke. A message has no others."""
        self._text = b""
        """What precedes more text of the open block; empty where none can follow."""

    def open(self) -> bytes:
        """Return the start of the message, with an estimate of what it costs to read."""
        usage = {"input_tokens": input_estimate(self._request), "output_tokens": 0}
        message = {**_head_fields(self._head), "content": [], **_END, "usage": usage}
        return _event("message_start", {"message": message})

    def delta(self, event: Delta) -> bytes:
        """Return what one event becomes."""
        prefix = self._text
        if prefix and type(event) is TextDelta and event.index == self._choice:
            return b"".join((prefix, _encode(event.text), b"}}\n\n"))  # nearly every event
        if self._choice < 0:
            self._choice = event.index
        if event.index != self._choice:
            return b""
        written = _written(self._blocks.delta(event))
        self._text = b""
        if type(event) is TextDelta and self._blocks.takes_text:
            fields = {"index": self._blocks.index, "delta": {"type": "text_delta", "text": ""}}
            self._text = _event("content_block_delta", fields).removesuffix(b'""}}\n\n')
        return written

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the end of the open block and of the message."""
        rest = _written(self._blocks.release() + self._blocks.close())
        ends = {end.index: end for end in finish.choices}
        delta, more = _end_fields(ends.get(self._choice, finish.choices[0]), finish.extras)
        end: dict[str, Any] = {"delta": delta, "usage": _usage_body(usage, cost)}
        if more:
            end["provider_extras"] = {self._head.provider: more}
        return rest + _event("message_delta", end) + _event("message_stop", {})

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the event that ends a message which failed. No ``message_stop`` follows it."""
        body = _error_body(error)
        if usage is not None and cost is not None:
            body["usage"] = _usage_body(usage, cost)
        return _written(self._blocks.release()) + _event("error", body)

    def waiting(self) -> list[Delta]:
        """Return what waits for the open call's end."""
        return self._blocks.waiting()


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer."""
    del request
    choice = answer.choices[0] if answer.choices else Choice(0)
    end = ChoiceEnd(choice.index, choice.reason, choice.raw_reason)
    delta, more = _end_fields(end, answer.extras)
    body = {**_head_fields(head), "content": _content(choice), **delta}
    body["usage"] = _usage_body(usage, cost)
    if more:
        body["provider_extras"] = {head.provider: more}
    return _encode(body)


def encode_error(error: Mapping[str, Any]) -> bytes:
    """Return the body of an error answer."""
    return _encode({"type": "error", **_error_body(error)})


def _event(kind: str, rest: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **rest}))


def _written(told: Told) -> bytes:
    return b"".join([_event(kind, fields) for kind, fields in told])


def _head_fields(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "provider": head.provider,
    }


def _end_fields(
    end: ChoiceEnd, extras: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a message ended, and those extras that have no place in it."""
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


def _content(choice: Choice) -> list[dict[str, Any]]:
    """Return what the stream's events of the same answer add up to."""
    blocks, content = Blocks(), Content()
    for event in choice.events:
        content.take(blocks.delta(event))
    content.take(blocks.release() + blocks.close())
    return content.blocks
