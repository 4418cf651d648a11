"""OpenAI Chat Completions streams, as upstreams send them: bytes in, events out.

Lenient in what it reads, strict in what it promises: an answer stands only with a finish
reason for every choice that spoke and a clean end (design decision 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

_DONE = b"[DONE]"

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
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "error": "error",
    "abort": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
    "malformed_function_call": "error",
}
"""Words that are not here count as a plain stop."""


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: Any = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class StreamDecoder:
    """Turns the body of one streamed answer into events.

    ``feed`` bytes as they arrive until ``done`` or ``failure``; call ``end`` when the body
    ends first. What came before a failure is returned before it, wherever the reads were cut.

    Attributes:
        done: the end marker has been read.
        failure: why the answer broke, or None: an error in the stream, no finish reason, or
            no longer the wire it should be.
    """

    def __init__(self) -> None:
        """Start before the first byte."""
        self.done = False
        self.failure: BackendError | None = None
        self._sse = SSEDecoder()
        self._started = False
        self._usage: Usage | None = None
        self._stale = False
        self._spoke: set[int] = set()
        self._ends: dict[int, ChoiceEnd] = {}
        self._called: set[int] = set()
        self._dropped = 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that ``data`` completes."""
        events: list[StreamEvent] = []
        self._take(self._sse.feed(data), events)
        return events

    def end(self) -> list[StreamEvent]:
        """The body ended cleanly without ``[DONE]``: finish if the answer is complete."""
        events: list[StreamEvent] = []
        self._take((*self._sse.end(), _DONE), events)
        return events

    def _take(self, payloads: Iterable[bytes], events: list[StreamEvent]) -> None:
        if self.done or self.failure is not None:
            return
        try:
            for payload in payloads:
                if payload.startswith(_DONE) and payload.rstrip() == _DONE:
                    events.append(self._finish())
                    return
                try:
                    chunk = _decode(payload)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    self._drop(payload, error)
                    continue
                if chunk.error:
                    raise stream_error(chunk.error)
                if not self._started:
                    self._started = True
                    events.append(ResponseStart(_word(chunk.id), chunk.model))
                for choice in chunk.choices or ():
                    self._choice(choice, events)
                if chunk.usage is not None:
                    self._report(chunk.usage, events)
        except EventTooLong as error:
            self.failure = ProtocolError(f"the upstream's stream: {error}")
        except RecursionError:
            self.failure = ProtocolError("a chunk is nested too deep for OpenAI's chat wire")
        except BackendError as error:
            self.failure = error

    def _drop(self, payload: bytes, error: Exception) -> None:
        """Count what is not JSON.

        Raises:
            ProtocolError: it is JSON, but of another wire.
        """
        if isinstance(error, msgspec.ValidationError) and _is_json(payload):
            raise ProtocolError(f"a chunk is not of OpenAI's chat wire: {error}") from error
        self._dropped += 1

    def _choice(self, choice: _Choice, events: list[StreamEvent]) -> None:
        delta = choice.delta
        if delta is not None:
            index, before, text = choice.index, len(events), delta.content
            if (
                delta.reasoning
                or delta.reasoning_content
                or delta.reasoning_details
                or isinstance(text, list)
            ):
                text = self._thoughts(index, delta, events)
            if text:
                logprobs = choice.logprobs
                if logprobs is not None and not isinstance(logprobs, dict):
                    logprobs = None
                events.append(TextDelta(index, text, logprobs))
            if delta.refusal:
                events.append(RefusalDelta(index, delta.refusal))
            if delta.tool_calls:
                self._calls(index, delta.tool_calls, events)
            if len(events) > before:
                self._spoke.add(index)
                self._stale = True
        if choice.finish_reason:
            self._end(choice.index, choice.finish_reason)

    def _end(self, index: int, raw: str) -> None:
        reason = _REASONS.get(raw.lower(), "stop")
        if reason == "error":
            raise UpstreamFailed(f"the upstream ended its answer with finish reason {raw!r}")
        if reason == "stop" and index in self._called:
            reason = "tool_calls"
        self._ends[index] = ChoiceEnd(index, reason, raw)

    def _thoughts(self, index: int, delta: _Delta, events: list[StreamEvent]) -> str:
        """Add the reasoning of a delta; return its visible text."""
        thought, text = delta.reasoning or delta.reasoning_content or "", delta.content or ""
        if not isinstance(text, str):
            thought, text = thought + _joined(text, "thinking"), _joined(text, "text")
        details = delta.reasoning_details if isinstance(delta.reasoning_details, list) else None
        if thought or details:
            events.append(ReasoningDelta(index, thought, details or None))
        return text

    def _calls(self, index: int, calls: list[_ToolCall], events: list[StreamEvent]) -> None:
        self._called.add(index)
        for position, call in enumerate(calls):
            function = call.function or _Function()
            events.append(
                ToolCallDelta(
                    index,
                    position if call.index is None else call.index,
                    _word(call.id),
                    function.name or None,
                    _arguments(function.arguments),
                )
            )

    def _report(self, document: Any, events: list[StreamEvent]) -> None:
        usage = read_usage(document)
        if usage is None:
            return
        self._usage, self._stale = usage, False
        if not self._ends:
            events.append(UsageUpdate(usage.prompt_tokens, usage.completion_tokens))

    def _finish(self) -> Finish:
        self.done = True
        if not self._ends:
            raise StreamTruncated("the upstream's stream ended without a finish reason")
        if cut := sorted(self._spoke - set(self._ends)):
            raise StreamTruncated(f"the upstream's stream ended before choice {cut[0]} did")
        ends = tuple(self._ends[index] for index in sorted(self._ends))
        # A count that content followed is no report of the whole answer.
        return Finish(ends, None if self._stale else self._usage, self._dropped)


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
    thought = _detail(document, "completion_tokens_details", "reasoning_tokens")
    if thought and document.get("total_tokens") == prompt + completion + thought:
        completion += thought  # counted apart, as the total shows
    return Usage(
        prompt,
        completion,
        _detail(document, "prompt_tokens_details", "cached_tokens"),
        _detail(document, "prompt_tokens_details", "cache_write_tokens"),
        thought,
    )


def _count(value: Any) -> int | None:
    # Negative counts are kept: the bill has to see them to distrust the report.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _word(value: Any) -> str | None:
    """Read an id: a string, or the number that some servers send; empty means absent."""
    return str(value) if isinstance(value, str | int) and value != "" else None


def _arguments(value: Any) -> str:
    """Read a piece of arguments: text, or the object itself that some servers send."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _joined(parts: list[Any], kind: str) -> str:
    """Join the texts of one kind in content that came as a list of typed parts."""
    pieces = []
    for part in parts:
        if isinstance(part, dict) and part.get("type") == kind:
            piece = part.get(kind)
            if isinstance(piece, list) and kind != "text":
                piece = _joined(piece, "text")
            pieces.append(piece)
    return "".join(piece for piece in pieces if isinstance(piece, str))


def stream_error(error: Any) -> BackendError:
    """Return the error that an ``error`` object inside a stream stands for."""
    if not isinstance(error, dict):
        return UpstreamFailed(f"the upstream reported an error: {str(error)[:500]}")
    code = error.get("code")
    message = str(error.get("message") or "the upstream reported an error in its stream")[:2000]
    if isinstance(code, int) and 400 <= code < 600:
        return classify(code, message)
    return classify(502, message, code=str(code) if code is not None else None)
