"""OpenAI Chat Completions streams, as upstreams send them: bytes in, events out.

Lenient in what it reads, strict in what it promises: an answer stands only with a finish
reason for every choice that spoke and a clean end (design decision 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backends.types import ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, Usage
from backends.wire.decoder import AnswerDecoder, count, json_text
from backends.wire.failure import stream_error


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


class StreamDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "OpenAI's chat"

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        chunk = _decode(payload)
        if chunk.error:
            # What came beside the error was said before it.
            self._choices(chunk, events)
            raise stream_error(msgspec.json.decode(payload))
        if not self._started:
            self.begin(events, chunk.id, chunk.model)
        self._choices(chunk, events)
        if chunk.usage is not None:
            self.report(read_usage(chunk.usage), events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer is one chunk whose deltas are messages."""
        choices = [
            {**choice, "delta": choice.get("message")}
            for choice in document.get("choices") or ()
            if isinstance(choice, dict)
        ]
        self.payload(msgspec.json.encode({**document, "choices": choices}), events)

    def _choices(self, chunk: _Chunk, events: list[StreamEvent]) -> None:
        for choice in chunk.choices or ():
            delta = choice.delta
            if delta is not None:
                self._delta(choice.index, delta, choice.logprobs, events)
            if choice.finish_reason:
                self.end_choice(events, choice.index, choice.finish_reason)

    def _delta(self, index: int, delta: _Delta, logprobs: Any, events: list[StreamEvent]) -> None:
        text = delta.content
        if (
            delta.reasoning
            or delta.reasoning_content
            or delta.reasoning_details
            or isinstance(text, list)
        ):
            text = self._thoughts(index, delta, events)
        if text:
            if logprobs is not None and not isinstance(logprobs, dict):
                logprobs = None
            self.say(events, TextDelta(index, text, logprobs))
        if delta.refusal:
            self.say(events, RefusalDelta(index, delta.refusal))
        for position, call in enumerate(delta.tool_calls or ()):
            function = call.function or _Function()
            self.call(
                events,
                index,
                position if call.index is None else call.index,
                call.id,
                function.name,
                json_text(function.arguments),
            )

    def _thoughts(self, index: int, delta: _Delta, events: list[StreamEvent]) -> str:
        """Add the reasoning of a delta; return its visible text."""
        thought, text = delta.reasoning or delta.reasoning_content or "", delta.content or ""
        if not isinstance(text, str):
            thought, text = thought + _joined(text, "thinking"), _joined(text, "text")
        details = delta.reasoning_details if isinstance(delta.reasoning_details, list) else None
        if thought or details:
            self.say(events, ReasoningDelta(index, thought, details or None))
        return text


def read_usage(document: Any) -> Usage | None:
    """Read a ``usage`` object; None if it has no two whole token counts."""
    if not isinstance(document, dict):
        return None
    prompt, completion = (
        count(document.get("prompt_tokens")),
        count(document.get("completion_tokens")),
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


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count(details.get(name)) if isinstance(details, dict) else None


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
