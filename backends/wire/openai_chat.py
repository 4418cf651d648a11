"""OpenAI Chat Completions streams, as upstreams send them: bytes in, events out.

Lenient in what it reads, strict in what it promises: an answer stands only with a finish
reason for every choice that spoke and a clean end (design decision 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backends.errors import BackendError, ProtocolError, StreamTruncated, UpstreamFailed, classify
from backends.types import (
    ChoiceEnd,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from backends.wire.sse import EventTooLong, SSEDecoder

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
}


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = []
    usage: Any = None
    error: Any = None


class StreamDecoder:
    """Turns the body of one streamed answer into events.

    ``feed`` bytes as they arrive until ``done``; call ``end`` when the body ends first.
    """

    def __init__(self) -> None:
        """Start before the first byte."""
        self.done = False
        self._sse = SSEDecoder()
        self._chunks = msgspec.json.Decoder(_Chunk)
        self._started = False
        self._usage: Usage | None = None
        self._spoke: set[int] = set()
        self._ends: dict[int, ChoiceEnd] = {}
        self._called: set[int] = set()
        self._dropped = 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that ``data`` completes.

        Raises:
            BackendError: an error in the stream, or no longer the wire it should be.
        """
        events: list[StreamEvent] = []
        try:
            for payload in self._sse.feed(data):
                if payload == b"[DONE]":
                    events.append(self._finish())
                    break
                self._payload(payload, events)
        except EventTooLong as error:
            raise ProtocolError(f"the upstream's stream: {error}") from error
        return events

    def end(self) -> list[StreamEvent]:
        """The body ended cleanly without ``[DONE]``: finish if the answer is complete.

        Raises:
            StreamTruncated: it is not.
        """
        return [] if self.done else [self._finish()]

    def _payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        try:
            chunk = self._chunks.decode(payload)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"a chunk is not of OpenAI's chat wire: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._dropped += 1
            return
        if chunk.error:
            raise stream_error(chunk.error)
        if not self._started:
            self._started = True
            events.append(ResponseStart(chunk.id, chunk.model))
        for choice in chunk.choices:
            self._choice(choice, events)
        if chunk.usage is not None:
            self._report(chunk.usage, events)

    def _choice(self, choice: _Choice, events: list[StreamEvent]) -> None:
        before = len(events)
        if choice.delta is not None:
            self._deltas(choice, choice.delta, events)
        if len(events) > before:
            self._spoke.add(choice.index)
        raw = choice.finish_reason
        if not raw:
            return
        if raw == "error":
            raise UpstreamFailed("the upstream ended its answer with finish reason 'error'")
        reason = _REASONS.get(raw.lower(), "stop")
        if reason == "stop" and choice.index in self._called:
            reason = "tool_calls"
        self._ends[choice.index] = ChoiceEnd(choice.index, reason, raw)

    def _deltas(self, choice: _Choice, delta: _Delta, events: list[StreamEvent]) -> None:
        index = choice.index
        thought = delta.reasoning or delta.reasoning_content
        if thought or delta.reasoning_details:
            events.append(ReasoningDelta(index, thought or "", delta.reasoning_details))
        if delta.content:
            events.append(TextDelta(index, delta.content, choice.logprobs))
        if delta.refusal:
            events.append(RefusalDelta(index, delta.refusal))
        for position, call in enumerate(delta.tool_calls or ()):
            function = call.function or {}
            self._called.add(index)
            events.append(
                ToolCallDelta(
                    index,
                    position if call.index is None else call.index,
                    call.id,
                    function.get("name"),
                    function.get("arguments") or "",
                )
            )

    def _report(self, document: Any, events: list[StreamEvent]) -> None:
        usage = read_usage(document)
        if usage is None:
            return
        self._usage = usage
        if not self._ends:
            events.append(UsageUpdate(usage.prompt_tokens, usage.completion_tokens))

    def _finish(self) -> Finish:
        self.done = True
        if not self._ends:
            raise StreamTruncated("the upstream's stream ended without a finish reason")
        if cut := sorted(self._spoke - set(self._ends)):
            raise StreamTruncated(f"the upstream's stream ended before choice {cut[0]} did")
        ends = tuple(self._ends[index] for index in sorted(self._ends))
        return Finish(ends, self._usage, self._dropped)


def read_usage(document: Any) -> Usage | None:
    """Read a ``usage`` object; None if it has no two whole token counts."""
    if not isinstance(document, dict):
        return None
    prompt, completion = (
        _count(document.get("prompt_tokens")),
        _count(document.get("completion_tokens")),
    )
    if prompt is None or completion is None:
        return None
    return Usage(
        prompt,
        completion,
        _detail(document, "prompt_tokens_details", "cached_tokens"),
        _detail(document, "prompt_tokens_details", "cache_write_tokens"),
        _detail(document, "completion_tokens_details", "reasoning_tokens"),
    )


def _count(value: Any) -> int | None:
    # Negative counts are kept: the bill has to see them to distrust the report.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def stream_error(error: Any) -> BackendError:
    """Return the error that an ``error`` object inside a stream stands for."""
    if not isinstance(error, dict):
        return UpstreamFailed(f"the upstream reported an error: {str(error)[:500]}")
    code = error.get("code")
    message = str(error.get("message") or "the upstream reported an error in its stream")[:2000]
    if isinstance(code, int) and 400 <= code < 600:
        return classify(code, message)
    return classify(502, message, code=str(code) if code is not None else None)
