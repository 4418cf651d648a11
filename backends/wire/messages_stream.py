"""Anthropic Messages streams, as upstreams send them: bytes in, events out.

The same payloads come framed as server-sent events (Anthropic, Vertex AI) and in AWS's event
stream (Bedrock): a subclass may give another ``framing``. Source: the Messages streaming
reference and the types of Anthropic's SDK 2.12 (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from backends.errors import ProtocolError
from backends.types import (
    AnnotationDelta,
    HalfUsage,
    PartStart,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Usage,
    UsageUpdate,
)
from backends.wire.decoder import AnswerDecoder
from backends.wire.details import ANTHROPIC
from backends.wire.failure import stream_error
from backends.wire.lenient import read
from backends.wire.values import count, json_text, report_of

_COUNTS: Final = (
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
)


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    citation: Any = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: dict[str, Any] | None = None


class _Stop(msgspec.Struct, gc=False):
    stop_reason: str | None = None
    stop_sequence: Any = None
    stop_details: Any = None
    container: Any = None


class _End(msgspec.Struct, gc=False):
    """A ``message_delta``, which comes once or twice in a stream."""

    type: str = ""
    delta: _Stop | None = None
    usage: Any = None
    context_management: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_end = msgspec.json.Decoder(_End).decode


class _Block:
    """The block that is open."""

    __slots__ = ("cited", "document", "fragments", "kind", "place", "start")

    def __init__(self, kind: str, document: dict[str, Any], place: int, start: int) -> None:
        self.kind = kind
        self.document = document
        self.place = place
        """Of a call its position, of reasoning its index."""
        self.start = start
        """How many characters of text came before it."""
        self.cited: list[Any] = []
        self.fragments: list[str] = []


class MessagesDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "Anthropic's Messages"
    closing = "message_stop"
    shapes = (_Event, _End)

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """Start before the first byte; see ``AnswerDecoder``."""
        super().__init__(new_id)
        self._blocks: dict[int, _Block] = {}
        self._counts: dict[str, int] = {}
        self._chars = 0
        self._begun = {"tool_use": 0, "reasoning": 0}
        self._held: list[_Block] = []
        """Calls of the model's own program. Another message may follow, which has their results;
        where none does, they are the client's to answer."""

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        event = _decode(payload)
        delta = event.delta
        if delta is not None and delta.type == "text_delta":  # nearly every event of a stream
            if text := delta.text:
                self._chars += len(text)
                if self._stale:
                    events.append(TextDelta(0, text))  # the one choice has spoken before
                else:
                    self.say(events, TextDelta(0, text))
        else:
            self._event(event, payload, events)

    def _event(self, event: _Event, payload: bytes, events: list[StreamEvent]) -> None:
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._delta(event.index, event.delta, events)
            case "content_block_start":
                if event.content_block is not None:
                    self._open(event.index, event.content_block, events)
            case "content_block_stop":
                self._close(event.index, events)
            case "message_start":
                self._message(event.message or {}, events)
            case "message_delta":
                self._end(_decode_end(payload), events)
            case "message_stop":
                self.closed = True
                if not self._held:
                    self.complete(events)
            case "error" | "":
                self._refuse(msgspec.json.decode(payload))
            case _:  # ping, and what is to come
                pass

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer is a message that starts with all it holds."""
        if document.get("type") == "error":
            raise stream_error(document)
        if not isinstance(document.get("content"), list):
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire")
        self._message(document, events)
        self.closed = True

    def complete(self, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; calls that nobody has answered are the client's.

        Of an answer that breaks off nobody knows whether they were answered.
        """
        held, self._held = self._held if self.closed else [], []
        stale = self._stale
        for block in held:
            self._call(block, "".join(block.fragments) or _input(block), events)
            name = self.calls.id_at((0, block.place))
            self.extras.setdefault("callers", {})[name] = block.document["caller"]
        self._stale = stale  # the upstream told of them before it counted
        super().complete(events)

    def _refuse(self, document: dict[str, Any]) -> None:
        if document.get("error"):
            raise stream_error(document)
        raise ProtocolError(f"a chunk is not of {self.wire} wire: it has no type")

    def _message(self, message: dict[str, Any], events: list[StreamEvent]) -> None:
        """A message begins. After a program's calls it says that they were answered."""
        self.begin(events, message.get("id"), message.get("model"))
        self._ends.clear()
        for index in tuple(self._blocks):
            self._close(index, events)
        self._counts.clear()
        self.closed = False
        if self._held:
            answered = [block.document for block in self._held]
            self.extras.setdefault("blocks", []).extend(answered)
            self._held.clear()
        content = message.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block, dict):
                self._open(index, block, events)
                self._close(index, events)
        self._count(message.get("usage"))
        if message.get("stop_reason"):
            managed = message.get("context_management")
            self._end(_End(delta=read(message, _Stop), context_management=managed), events)
        elif "input_tokens" in self._counts and not self._spoke:
            # Its count of output is of no part of the answer that came yet.
            events.append(UsageUpdate(self._prompt(), 0))

    def _open(self, index: int, document: dict[str, Any], events: list[StreamEvent]) -> None:
        self.begin(events)
        self._close(index, events)  # where the end of one before it there is missing
        kind = document.get("type")
        kind = kind if isinstance(kind, str) else ""
        caller = document.get("caller")
        if kind == "tool_use" and isinstance(caller, dict) and caller.get("type") != "direct":
            kind = "program_use"
        place = 0
        if kind in ("thinking", "redacted_thinking"):
            place = self._begun["reasoning"]
            self._begun["reasoning"] += 1
        block = self._blocks[index] = _Block(kind, document, place, self._chars)
        match kind:
            case "text":
                if self._chars:
                    events.append(PartStart(0))
                self._text(_text(document, "text"), events)
                cited = document.get("citations")
                block.cited = list(cited) if isinstance(cited, list) else []
            case "thinking":
                thought = _Delta("", "", _text(document, "thinking"), _text(document, "signature"))
                self._thought(block, thought, events)
            case "redacted_thinking":
                data = {"type": "reasoning.encrypted", "data": _text(document, "data")}
                self.say(events, ReasoningDelta(0, "", [_detail(block, data)]))
            case "tool_use":
                self._call(block, "", events)
            case "program_use":
                self._held.append(block)
                self._usage = None  # a count before it is not of it
            case _:  # what the server did by itself
                self.extras.setdefault("blocks", []).append(document)

    def _delta(self, index: int, delta: _Delta, events: list[StreamEvent]) -> None:
        block = self._blocks.get(index)
        if block is None:
            raise ProtocolError(f"a delta of {self.wire} wire is of no block")
        if delta.type in ("thinking_delta", "signature_delta"):
            self._thought(block, delta, events)
        elif delta.type == "input_json_delta":
            if block.kind == "tool_use":
                if delta.partial_json.strip():
                    block.document["input"] = None  # what comes in pieces comes again
                self.call(events, 0, block.place, arguments=delta.partial_json)
            else:
                block.fragments.append(delta.partial_json)
        elif delta.type == "citations_delta" and delta.citation is not None:
            block.cited.append(delta.citation)

    def _close(self, index: int, events: list[StreamEvent]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.kind == "tool_use":
            if arguments := _input(block):
                self.call(events, 0, block.place, arguments=arguments)
            self.calls.end(events, (0, block.place))
        elif block.cited:
            span = (block.start, self._chars)
            found = [_annotation(c, span) for c in block.cited if isinstance(c, dict)]
            events.append(AnnotationDelta(0, found))
        elif block.fragments and (text := "".join(block.fragments)):
            block.document["input"] = _json(text)

    def _drop(self, payload: bytes, error: Exception, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; after a pause it was another message, of which more is missing."""
        dropped = self._dropped
        super()._drop(payload, error, events)
        if self._dropped > dropped:  # not mended
            self.closed = False

    def _call(self, block: _Block, arguments: str, events: list[StreamEvent]) -> None:
        """A call for the client begins."""
        block.place = self._begun["tool_use"]
        self._begun["tool_use"] += 1
        name = _text(block.document, "name") or None
        self.call(events, 0, block.place, block.document.get("id"), name, arguments)

    def _text(self, text: str, events: list[StreamEvent]) -> None:
        if text:
            self._chars += len(text)
            self.say(events, TextDelta(0, text))

    def _thought(self, block: _Block, delta: _Delta, events: list[StreamEvent]) -> None:
        detail: dict[str, Any] = {"type": "reasoning.text"}
        if delta.thinking:
            detail["text"] = delta.thinking
        if delta.signature:
            detail["signature"] = delta.signature
        if len(detail) > 1:
            self.say(events, ReasoningDelta(0, delta.thinking, [_detail(block, detail)]))

    def _end(self, event: _End, events: list[StreamEvent]) -> None:
        """The message ends, and says how; its count is of the whole of it."""
        delta = event.delta or _Stop()
        self.begin(events)
        for index in tuple(self._blocks):
            self._close(index, events)
        for name, value in (
            ("stop_sequence", delta.stop_sequence),
            ("stop_details", delta.stop_details),
            ("container", delta.container),
            ("context_management", event.context_management),
        ):
            if value is not None:
                self.extras[name] = value
        if event.usage is not None:
            self._count(event.usage)
        if delta.stop_reason:
            self.end_choice(events, 0, delta.stop_reason)
        if event.usage is not None or not event.type:
            self.report(self._usage_now(), events)

    def _count(self, usage: Any) -> None:
        """Take counts; each is of everything so far, and replaces what was said before."""
        if not isinstance(usage, Mapping):
            return
        for name in _COUNTS:
            if (found := count(usage.get(name))) is not None:
                self._counts[name] = found
        if iterations := usage.get("iterations"):
            self.extras["usage"] = {"iterations": iterations}
        details = usage.get("output_tokens_details")
        if (
            isinstance(details, Mapping)
            and (n := count(details.get("thinking_tokens"))) is not None
        ):
            self._counts["thinking_tokens"] = n

    def _prompt(self) -> int:
        return sum(self._counts.get(name, 0) for name in _COUNTS[:3])

    def _usage_now(self) -> Usage | HalfUsage | None:
        counts = self._counts
        return report_of(
            self._prompt() if "input_tokens" in counts else None,
            counts.get("output_tokens"),
            counts.get("cache_read_input_tokens"),
            counts.get("cache_creation_input_tokens"),
            counts.get("thinking_tokens"),
        )


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _input(block: _Block) -> str:
    """Return the arguments with which a call begins; ``{}`` stands for what comes later."""
    given = block.document.get("input")
    return json_text(given) if given else ""


def _detail(block: _Block, detail: dict[str, Any]) -> dict[str, Any]:
    return {**detail, "format": ANTHROPIC, "index": block.place}


def _annotation(citation: dict[str, Any], span: tuple[int, int]) -> dict[str, Any]:
    """Return a citation in OpenAI's shape where it has an address; always as it was, too."""
    url = citation.get("url") or citation.get("source")
    if not isinstance(url, str):
        return {"type": "citation", "citation": citation}
    shown = {
        "url": url,
        "title": citation.get("title") or "",
        "content": citation.get("cited_text") or "",
        "start_index": span[0],
        "end_index": span[1],
    }
    return {"type": "url_citation", "url_citation": shown, "citation": citation}


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
