"""Ollama's own answers: a JSON document a line in, events out.

Source: Ollama's API reference, ``/api/chat`` and ``/api/embed`` (read 2026-11). ``/api/generate``
says the same in ``response`` instead of ``message``; it is read as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from backends.errors import ProtocolError
from backends.types import ReasoningDelta, StreamEvent, TextDelta
from backends.wire.decoder import AnswerDecoder
from backends.wire.error_words import says
from backends.wire.failure import stream_error
from backends.wire.ndjson import NDJSONDecoder
from backends.wire.sse import MAX_EVENT_BYTES, EventTooLong
from backends.wire.values import count, json_text, report_of, word
from backends.wire.vectors import VectorsDecoder

_TIMES: Final = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    id: Any = None
    function: _Function | None = None
    name: Any = None
    arguments: Any = None
    """The last two of a call that is flat."""


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(msgspec.Struct, gc=False):
    model: str | None = None
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class OllamaDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "Ollama's"
    shapes = (_Line,)

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """See ``AnswerDecoder``."""
        super().__init__(new_id)
        self._called = 0
        self._lines: list[bytes] = []
        """Of a document that some proxy spread over lines."""

        self._lines_bytes = 0

    def framing(self, first: bytes) -> NDJSONDecoder:
        """A whole answer is a stream of one line."""
        del first
        return NDJSONDecoder()

    def _drop(self, payload: bytes, error: Exception, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; lines from a lone brace to that which closes it are one."""
        if self._lines or payload.rstrip() == b"{":
            self._lines.append(payload)
            self._lines_bytes += len(payload)
            if self._lines_bytes > MAX_EVENT_BYTES:
                raise EventTooLong(f"a document is longer than {MAX_EVENT_BYTES} bytes")
            if payload.rstrip() != b"}":
                return
            payload = b"".join(self._lines)
            self._forget()
            try:
                self.payload(payload, events)
            except (msgspec.DecodeError, UnicodeDecodeError) as unread:
                error = unread
            else:
                return
        super()._drop(payload, error, events)

    def complete(self, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; a document that never closed is none."""
        self._dropped += len(self._lines)
        super().complete(events)

    def _forget(self) -> None:
        self._lines, self._lines_bytes = [], 0

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        line = _decode(payload)
        if self._lines:  # a line that stands for itself: those before it were no document
            self._dropped += len(self._lines)
            self._forget()
        if line.error and says(line.error):
            raise stream_error(msgspec.json.decode(payload))
        if not self._started:
            self.begin(events, None, line.model)
        message = line.message
        if message is None:
            message = _Message(line.response, line.thinking)
        if message.thinking:
            self.say(events, ReasoningDelta(0, message.thinking))
        if message.content:
            self.say(events, TextDelta(0, message.content))
        for call in message.tool_calls or ():
            function = call.function or _Function(word(call.name), call.arguments)
            self.call(
                events, 0, self._called, call.id, function.name, json_text(function.arguments)
            )
            self._called += 1
        if line.done:
            self._finish(line, payload, events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        self.payload(msgspec.json.encode(document), events)

    def _finish(self, line: _Line, payload: bytes, events: list[StreamEvent]) -> None:
        self.end_choice(events, 0, line.done_reason or "stop")
        self.report(report_of(line.prompt_eval_count, line.eval_count), events)
        document = msgspec.json.decode(payload)
        if times := {name: document[name] for name in _TIMES if name in document}:
            self.extras["durations_ns"] = times
        self.complete(events)


class OllamaEmbedDecoder(VectorsDecoder):
    """Turns an embed answer into vectors."""

    wire = "Ollama's embed"

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        try:
            vectors = msgspec.convert(document.get("embeddings"), list[list[float]])
        except msgspec.ValidationError as error:
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire") from error
        self.begin(events, None, document.get("model"))
        self.vectors(vectors, count(document.get("prompt_eval_count")), events)
