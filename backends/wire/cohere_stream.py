"""Cohere's v2 answers: bytes in, events out.

Source: Cohere's API reference, "Chat (v2)", streamed and whole, and "Embed (v2)" (read 2026-11).
"""

from __future__ import annotations

from typing import Any

import msgspec

from backends.errors import ProtocolError
from backends.types import AnnotationDelta, HalfUsage, ReasoningDelta, StreamEvent, TextDelta, Usage
from backends.wire.decoder import AnswerDecoder
from backends.wire.failure import stream_error
from backends.wire.lenient import read
from backends.wire.values import count, json_text, report_of, word
from backends.wire.vectors import VectorsDecoder


class _Piece(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


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
    """A piece of a message: lists, where it is whole or has only begun."""

    content: _Piece | list[_Piece] | str | None = None
    tool_plan: str | None = None
    tool_calls: _Call | list[_Call] | None = None
    citations: Any = None


class _Delta(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    id: Any = None
    index: int = 0
    delta: _Delta | None = None


_decode = msgspec.json.Decoder(_Event).decode


class CohereDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "Cohere's"
    shapes = (_Event,)

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        event = _decode(payload)
        delta = event.delta
        if event.type == "content-delta" and self._started and delta and delta.message:
            content = delta.message.content
            if content.__class__ is _Piece and content.text:  # nearly every event of a stream
                self.say(events, TextDelta(0, content.text))
                return
        if not event.type:
            raise stream_error(msgspec.json.decode(payload))
        if event.type == "message-start":
            self.begin(events, event.id)
        elif not self._started:
            self.begin(events)
        if delta is None:
            return
        if delta.message is not None:
            self._message(delta.message, event.index, events)
        if event.type == "message-end":
            self._end(delta, events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        if not isinstance(document.get("message"), dict):
            raise stream_error(document)
        delta = read(document, _Delta)
        self.begin(events, document.get("id"))
        assert delta.message is not None
        self._message(delta.message, 0, events)
        if delta.finish_reason:
            self._end(delta, events)

    def _message(self, message: _Message, index: int, events: list[StreamEvent]) -> None:
        if message.tool_plan:
            self.say(events, ReasoningDelta(0, message.tool_plan))
        content = message.content
        if isinstance(content, _Piece):
            self._piece(content, events)
        elif isinstance(content, str):
            self._piece(_Piece(content), events)
        else:
            for piece in content or ():
                self._piece(piece, events)
        calls = message.tool_calls
        if isinstance(calls, _Call):
            self._call(calls, index, events)
        else:
            for position, call in enumerate(calls or ()):
                self._call(call, position, events)
        if message.citations:
            self._cite(message.citations, events)

    def _piece(self, piece: _Piece, events: list[StreamEvent]) -> None:
        if piece.thinking:
            self.say(events, ReasoningDelta(0, piece.thinking))
        if piece.text:
            self.say(events, TextDelta(0, piece.text))

    def _call(self, call: _Call, position: int, events: list[StreamEvent]) -> None:
        function = call.function or _Function(word(call.name), call.arguments)
        self.call(events, 0, position, call.id, function.name, json_text(function.arguments))

    def _cite(self, citations: Any, events: list[StreamEvent]) -> None:
        """Citations have places in the text, and sources that need have no address."""
        found = citations if isinstance(citations, list) else [citations]
        found = [citation for citation in found if isinstance(citation, dict)]
        if found:
            events.append(AnnotationDelta(0, [_annotation(citation) for citation in found]))
            self.extras.setdefault("citations", []).extend(found)

    def _end(self, delta: _Delta, events: list[StreamEvent]) -> None:
        if delta.error:
            raise stream_error({"error": delta.error})
        usage = delta.usage if isinstance(delta.usage, dict) else {}
        if delta.finish_reason:
            self.end_choice(events, 0, delta.finish_reason)
        if billed := usage.get("billed_units"):
            self.extras["billed_units"] = billed
        self.report(_usage(usage), events)


class CohereEmbedDecoder(VectorsDecoder):
    """Turns an embed answer into vectors."""

    wire = "Cohere's embed"

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        embeddings = document.get("embeddings")
        vectors = embeddings.get("float") if isinstance(embeddings, dict) else embeddings
        try:
            found = msgspec.convert(vectors, list[list[float]])
        except msgspec.ValidationError as error:
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire") from error
        self.begin(events, document.get("id"))
        meta = document.get("meta")
        billed = meta.get("billed_units") if isinstance(meta, dict) else None
        tokens = count(billed.get("input_tokens")) if isinstance(billed, dict) else None
        self.vectors(found, tokens, events)


def _usage(usage: dict[str, Any]) -> Usage | HalfUsage | None:
    """Read what the model read and wrote.

    ``tokens`` counts all of it, the vendor's own preamble and marks included; ``billed_units``
    leaves those out, so it is no count of what the model did, and goes out as an extra.
    """
    found: Usage | HalfUsage | None = None
    for name in ("tokens", "billed_units"):
        counts = usage.get(name)
        if not isinstance(counts, dict):
            continue
        prompt, completion = count(counts.get("input_tokens")), count(counts.get("output_tokens"))
        cached, thought = count(usage.get("cached_tokens")), count(counts.get("reasoning_tokens"))
        report = report_of(prompt, completion, cached, None, thought)
        if isinstance(report, Usage):
            return report
        found = found or report
    return found


def _annotation(citation: dict[str, Any]) -> dict[str, Any]:
    sources = citation.get("sources")
    sources = sources if isinstance(sources, list) else ()
    source = next((s for s in sources if isinstance(s, dict)), {})
    held = source.get("document") or source.get("tool_output")
    held = held if isinstance(held, dict) else {}
    return {
        "type": "url_citation",
        "url_citation": {
            "url": str(held.get("url") or ""),
            "title": str(held.get("title") or source.get("id") or ""),
            "content": str(citation.get("text") or ""),
            "start_index": citation.get("start"),
            "end_index": citation.get("end"),
        },
    }
