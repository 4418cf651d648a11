"""Answers of Bedrock's Converse and ConverseStream: bytes in, events out.

Source: "ConverseStream" in the API reference of Amazon Bedrock Runtime, and its service model
(botocore 1.44.5, read 2026-11). Only tool calls, images and results of server-side tools are
announced by ``contentBlockStart``; usage comes after ``messageStop``, in ``metadata``; a key
``p`` pads every event and means nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from backends.errors import ProtocolError
from backends.types import (
    AnnotationDelta,
    HalfUsage,
    ImageDelta,
    PartStart,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Usage,
)
from backends.wire.aws_frames import Frames, named
from backends.wire.bedrock_citations import annotation
from backends.wire.decoder import AnswerDecoder, Framing
from backends.wire.details import ANTHROPIC
from backends.wire.lenient import read
from backends.wire.values import count, json_text, report_of


class _Source(msgspec.Struct, gc=False):
    data: bytes = msgspec.field(name="bytes", default=b"")


class _Named(msgspec.Struct, gc=False, rename="camel"):
    tool_use_id: Any = None
    name: str | None = None
    type: str | None = None
    status: str | None = None
    format: str | None = None
    input: Any = None
    content: list[Any] | None = None
    source: _Source | None = None
    """The last three of a whole answer; in a stream they follow in deltas."""


class _Start(msgspec.Struct, gc=False, rename="camel"):
    tool_use: _Named | None = None
    tool_result: _Named | None = None
    image: _Named | None = None


class _Input(msgspec.Struct, gc=False):
    input: Any = None


class _ReasoningText(msgspec.Struct, gc=False):
    text: str | None = None
    signature: str | None = None


class _Reasoning(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: bytes | None = None
    reasoning_text: _ReasoningText | None = None
    """Of a whole answer; in a stream its fields come one by one."""


class _Image(msgspec.Struct, gc=False):
    source: _Source | None = None


class _Delta(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _Reasoning | None = None
    citation: Any = None
    tool_result: list[Any] | None = None
    image: _Image | None = None


class _Cited(msgspec.Struct, gc=False):
    content: list[_Delta] | None = None
    citations: list[Any] | None = None


class _Content(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    tool_use: _Named | None = None
    tool_result: _Named | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None
    image: _Named | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Content]


class _BlockStart(msgspec.Struct, gc=False, rename="camel"):
    content_block_index: int = 0
    start: _Start | None = None


class _BlockStop(msgspec.Struct, gc=False, rename="camel"):
    content_block_index: int = 0


class _Stop(msgspec.Struct, gc=False, rename="camel"):
    stop_reason: str = ""
    additional_model_response_fields: Any = None


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    usage: Any = None
    trace: Any = None
    performance_config: Any = None
    service_tier: Any = None


class _Piece(msgspec.Struct, gc=False, rename="camel"):
    """What nearly every event is: see ``named``."""

    content_block_index: int = 0
    delta: _Delta | None = None


class _Event(msgspec.Struct, gc=False, rename="camel"):
    """Any other event: an object whose only key says what it is."""

    content_block_start: _BlockStart | None = None
    content_block_stop: _BlockStop | None = None
    message_start: Any = None
    message_stop: _Stop | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_piece = msgspec.json.Decoder(_Piece).decode


class _Block:
    """What has to be kept of a content block until it ends."""

    __slots__ = ("call", "citations", "image", "pieces", "server", "start", "words")

    def __init__(self, start: int) -> None:
        self.start = start
        """Where in the answer's text it begins, in characters."""
        self.call: int | None = None
        self.citations: list[Mapping[str, Any]] = []
        self.image = "png"
        self.pieces: list[bytes] = []
        self.server: dict[str, Any] | None = None
        """A call that the upstream makes itself, or its result."""
        self.words: list[str] = []
        """The input of such a call."""


class ConverseDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "Bedrock's Converse"
    closing = "metadata"
    shapes = (_Piece, _Event)

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """See ``AnswerDecoder``."""
        super().__init__(new_id)
        self._blocks: dict[int, _Block] = {}
        self._count = 0
        self._said = 0
        self._flowing = -1
        """The block whose text came last, while nothing else has come since."""

    def framing(self, first: bytes) -> Framing | None:
        """See ``AnswerDecoder``."""
        return None if first in (b"{", b"[") else Frames(named)

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        piece = _decode_piece(payload)
        delta = piece.delta
        if delta is None:
            self._event(_decode(payload), events)
        elif (text := delta.text) and piece.content_block_index == self._flowing:
            self._said += len(text)  # nearly every event of a stream
            events.append(TextDelta(0, text))
        else:
            self._delta(piece.content_block_index, delta, events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer is played as the stream that it was not."""
        self.begin(events)
        output = document.get("output")
        message = output.get("message") if isinstance(output, dict) else None
        if not isinstance(message, dict):
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire")
        for index, block in enumerate(read(message, _Message).content):
            self._open(index, _Start(block.tool_use, block.tool_result, block.image), events)
            for delta in _deltas(block):
                self._delta(index, delta, events)
            self._close(index, events)
        self._stop(read(document, _Stop), events)
        self._metadata(read(document, _Metadata), events)

    def _event(self, event: _Event, events: list[StreamEvent]) -> None:
        self._flowing = -1
        if not self._started:
            self.begin(events)
        if (begun := event.content_block_start) is not None:
            if begun.start is not None:
                self._open(begun.content_block_index, begun.start, events)
        elif event.content_block_stop is not None:
            self._close(event.content_block_stop.content_block_index, events)
        elif event.message_stop is not None:
            self._stop(event.message_stop, events)
        elif event.metadata is not None:
            self._metadata(event.metadata, events)

    def _stop(self, stop: _Stop, events: list[StreamEvent]) -> None:
        for index in tuple(self._blocks):
            self._close(index, events)
        if stop.additional_model_response_fields:
            more = stop.additional_model_response_fields
            self.extras["additional_model_response_fields"] = more
        if stop.stop_reason:
            self.end_choice(events, 0, stop.stop_reason)

    def _metadata(self, metadata: _Metadata, events: list[StreamEvent]) -> None:
        self.closed = True
        self.report(read_usage(metadata.usage), events)
        trace = metadata.trace if isinstance(metadata.trace, dict) else {}
        told = {
            # A guardrail's trace repeats what the guardrail took out: it goes to nobody.
            "trace": {name: value for name, value in trace.items() if name != "guardrail"},
            "performance_config": metadata.performance_config,
            "service_tier": metadata.service_tier,
        }
        self.extras.update((name, value) for name, value in told.items() if value)
        if self.ended():
            self.complete(events)

    def _block(self, index: int) -> _Block:
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block(self._said)
        return block

    def _open(self, index: int, start: _Start, events: list[StreamEvent]) -> None:
        block = self._block(index)
        if start.image is not None:
            block.image = start.image.format or block.image
        use = start.tool_use
        if use is not None and use.type != "server_tool_use":
            self._argument(block, "", events, use)
        elif (server := use or start.tool_result) is not None:
            given = {"toolUseId": server.tool_use_id, "name": server.name}
            given |= {"type": server.type, "status": server.status}
            block.server = {name: value for name, value in given.items() if value is not None}
            if not use:
                block.server["content"] = []

    def _delta(self, index: int, delta: _Delta, events: list[StreamEvent]) -> None:
        if delta.text:
            if index not in self._blocks:
                self._blocks[index] = _Block(self._said)
                if self._said:
                    events.append(PartStart(0))
            self._said += len(delta.text)
            self._flowing = index
            self.say(events, TextDelta(0, delta.text))
        elif delta.reasoning_content is not None:
            self._thought(index, delta.reasoning_content, events)
        elif delta.tool_use is not None:
            self._argument(self._block(index), json_text(delta.tool_use.input), events)
        elif isinstance(delta.citation, Mapping):
            self._block(index).citations.append(delta.citation)
        elif delta.tool_result is not None:
            block = self._block(index)
            if block.server is not None and "content" in block.server:
                block.server["content"] += delta.tool_result
        elif delta.image is not None and delta.image.source is not None:
            self._block(index).pieces.append(delta.image.source.data)

    def _argument(
        self, block: _Block, piece: str, events: list[StreamEvent], use: _Named | None = None
    ) -> None:
        if block.server is not None:
            block.words.append(piece)
            return
        if block.call is None:
            block.call, self._count = self._count, self._count + 1
        use = use or _Named()
        self.call(events, 0, block.call, use.tool_use_id, use.name, piece)

    def _thought(self, index: int, thought: _Reasoning, events: list[StreamEvent]) -> None:
        whole = thought.reasoning_text or thought
        detail = {"format": ANTHROPIC, "index": index}
        if thought.redacted_content is not None:
            # The vendor's own text, which Converse wraps once more.
            hidden = thought.redacted_content.decode("latin-1")
            detail = {"type": "reasoning.encrypted", "data": hidden, **detail}
        elif whole.text or whole.signature:
            detail = {"type": "reasoning.text", "text": whole.text or "", **detail}
            if whole.signature:
                detail["signature"] = whole.signature
        else:
            return
        self.say(events, ReasoningDelta(0, whole.text or "", [detail]))

    def _close(self, index: int, events: list[StreamEvent]) -> None:
        """A block has ended: what only makes sense whole goes out."""
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.call is not None:
            self.calls.end(events, (0, block.call))
        if block.server is not None:
            if "content" not in block.server:
                block.server["input"] = "".join(block.words)
            self.extras.setdefault("server_tools", []).append(block.server)
        if block.pieces:
            data = base64.b64encode(b"".join(block.pieces)).decode()
            self.say(events, ImageDelta(0, f"data:image/{block.image};base64,{data}"))
        span = (block.start, self._said)
        told = [(citation, annotation(citation, span)) for citation in block.citations]
        if shown := [entry for _, entry in told if entry is not None]:
            events.append(AnnotationDelta(0, shown))
        if others := [citation for citation, entry in told if entry is None]:
            self.extras.setdefault("citations", []).extend(others)


def read_usage(usage: Any) -> Usage | HalfUsage | None:
    """Read Converse's counts: its ``inputTokens`` are those that no cache held."""
    if not isinstance(usage, dict):
        return None
    fresh, output = count(usage.get("inputTokens")), count(usage.get("outputTokens"))
    read = count(usage.get("cacheReadInputTokens"))
    written = count(usage.get("cacheWriteInputTokens"))
    prompt = None if fresh is None else fresh + (read or 0) + (written or 0)
    return report_of(prompt, output, read, written)


def _deltas(block: _Content) -> Iterator[_Delta]:
    """Yield what would have brought a block of a whole answer."""
    if block.tool_use is not None:
        yield _Delta(tool_use=_Input(block.tool_use.input))
    elif block.tool_result is not None:
        yield _Delta(tool_result=block.tool_result.content or [])
    elif block.image is not None:
        yield _Delta(image=_Image(block.image.source))
    elif block.citations_content is not None:
        yield from block.citations_content.content or ()
        yield from (_Delta(citation=one) for one in block.citations_content.citations or ())
    else:
        yield _Delta(block.text, reasoning_content=block.reasoning_content)
