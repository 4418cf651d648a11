"""What all upstream wires share: bytes of one answer in, lawful events out.

A wire's module says what one payload means; framing, bookkeeping and the laws of a stream
(one start, one finish, a reason for every choice that spoke, complete tool calls) are here.
An upstream that answers whole where a stream was asked for is understood as well.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from backends.errors import (
    BackendError,
    ProtocolError,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    ChoiceEnd,
    Content,
    Finish,
    FinishReason,
    HalfUsage,
    ResponseStart,
    StreamEvent,
    Usage,
    UsageUpdate,
)
from backends.wire.calls import ToolCalls, call_id
from backends.wire.error_words import read_error, says
from backends.wire.failure import error_in, stream_error
from backends.wire.lenient import mend
from backends.wire.reasons import reason_of
from backends.wire.sse import EventTooLong, SSEDecoder
from backends.wire.values import is_json, word

_DONE: Final = b"[DONE]"
_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError)
_BROKEN: Final = (BackendError, EventTooLong, RecursionError)
_CUT: Final = ("length", "content_filter")
_HALF: Final = re.compile(
    rb"(?i)\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})"
    rb"|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}"
)
"""A surrogate without its other half: some servers cut a character into two chunks."""
_UNKNOWN: Final = rb"\\ufffd"
_decode: Final = msgspec.json.Decoder().decode


class Framing(Protocol):
    """Cuts a body into payloads, whatever the reads' boundaries."""

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Return the payloads that ``chunk`` completes."""
        ...

    def end(self) -> Iterable[bytes]:
        """Return a payload that only the body's end completes."""
        ...


class AnswerDecoder(ABC):
    """Turns the body of one answer into events.

    ``feed`` bytes as they arrive until ``done`` or ``failure``; call ``end`` when the body
    ends first. What came before a failure is returned before it, wherever the reads were cut.

    Attributes:
        done: the answer has ended cleanly, and ``Finish`` was returned.
        failure: why the answer broke, or None: an error in the stream, no finish reason, or
            not the wire it should be.
        closed: the wire's ``closing`` event was seen; true where it has none.
        calls: the tool calls so far.
        extras: what only this vendor says; goes out with ``Finish``.
    """

    wire = "the"
    """How errors name this wire."""

    implied_reason: str | None = None
    """The raw reason of choices that end without one; None where that means a cut."""

    closing = ""
    """The event with which a stream of this wire always ends, where a reason is not the last."""

    shapes: tuple[type[Any], ...] = ()
    """What a payload is read into; one that does not fit is mended along them, once."""

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """Start before the first byte; ``new_id`` names calls that an upstream left nameless."""
        self.done = False
        self.closed = not self.closing
        self.failure: BackendError | None = None
        self.extras: dict[str, Any] = {}
        self._frames: Framing | None = None
        self._whole: list[bytes] | None = None
        self.calls = ToolCalls(new_id or call_id)
        self._started = False
        self._usage: Usage | HalfUsage | None = None
        self._stale = False
        self._spoke: set[int] = set()
        self._ends: dict[int, ChoiceEnd] = {}
        self._dropped = 0
        self._last = b""
        """The last payload that was read: an error may look like one that says nothing."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that ``data`` completes."""
        frames = self._frames
        if frames is None:
            return self._first_read(data)
        events: list[StreamEvent] = []
        over = self.done or self.failure is not None  # a payload may set either
        if over:
            return events
        try:
            for payload in frames.feed(data):
                try:
                    self.payload(payload, events)
                    self._last = payload
                except _NOT_READ as error:
                    self._drop(payload, error, events)
                except ProtocolError as error:
                    raise (error_in(payload) or error) from error.__cause__
                if self.done:
                    break
        except _BROKEN as error:
            self._break(error)
        return events

    def end(self) -> list[StreamEvent]:
        """The body ended: finish if the answer is complete."""
        events: list[StreamEvent] = []
        over = self.done or self.failure is not None
        if over:
            return events
        take: Callable[[bytes, list[StreamEvent]], None] = self.payload
        rest: Iterable[bytes] = ()
        if self._whole is not None:
            take, rest = self._take_document, (b"".join(self._whole),)
        elif self._frames is not None:
            rest = self._frames.end()
        try:
            for payload in rest:
                try:
                    take(payload, events)
                    self._last = payload
                except _NOT_READ as error:
                    self._drop(payload, error, events)
                except ProtocolError as error:
                    raise (error_in(payload) or error) from error.__cause__
                if self.done:
                    break
            if not self.done:
                self.complete(events)
        except _BROKEN as error:
            self._break(error)
        return events

    # What a wire's module gives.

    def framing(self, first: bytes) -> Framing | None:
        """Return how the body is cut, seen from its first byte; None for one JSON document."""
        return None if first in (b"{", b"[") else SSEDecoder()

    @abstractmethod
    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """Take one payload of the stream.

        Raises:
            BackendError: it says that the answer failed.
            msgspec.DecodeError: it is not JSON, or (``ValidationError``) of another wire.
        """

    @abstractmethod
    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """Take an answer that came whole. It is no error; ends of choices are in it.

        Raises:
            BackendError: it is no answer of this wire, or says that it failed.
        """

    # What it says of the answer, in the order of the wire.

    def begin(self, events: list[StreamEvent], name: Any = None, model: Any = None) -> None:
        """The upstream has begun to answer; later calls have no effect."""
        if not self._started:
            self._started = True
            model = model if isinstance(model, str) and model else None
            events.append(ResponseStart(word(name), model))

    def say(self, events: list[StreamEvent], event: Content) -> None:
        """Add content of a choice."""
        if not self._started:
            self.begin(events)
        events.append(event)
        self._spoke.add(event.index)
        self._stale = True

    def call(
        self,
        events: list[StreamEvent],
        index: int,
        position: int,
        id: Any = None,  # noqa: A002
        name: str | None = None,
        arguments: str = "",
    ) -> None:
        """Add a piece of the call at ``position`` of a choice; id and name count once."""
        if not self._started:
            self.begin(events)
        self._spoke.add(index)
        self._stale = True
        self.calls.add(events, (index, position), (word(id), name), arguments)

    def end_choice(
        self,
        events: list[StreamEvent],
        index: int,
        raw: str,
        reason: FinishReason | None = None,
    ) -> None:
        """A choice has ended, with the upstream's own word for it.

        Raises:
            UpstreamFailed: the word means that the answer failed.
        """
        reason = reason or reason_of(raw)
        if reason == "error":
            raise UpstreamFailed(f"the upstream ended its answer with finish reason {raw!r}")
        self._ends[index] = ChoiceEnd(index, reason, raw)

    def ended(self, index: int = 0) -> bool:
        """Whether a choice has ended."""
        return index in self._ends

    def report(self, usage: Usage | HalfUsage | None, events: list[StreamEvent]) -> None:
        """The upstream's count of everything up to here; None changes nothing."""
        if usage is None:
            return
        self._usage, self._stale = usage, False
        if not self._started:
            self.begin(events)
        if not self._ends and isinstance(usage, Usage):
            events.append(UsageUpdate(usage.prompt_tokens, usage.completion_tokens))

    def complete(self, events: list[StreamEvent]) -> None:
        """The stream's own end marker: nothing of the answer follows.

        Raises:
            StreamTruncated: a choice has not ended, or the wire's last event is missing.
        """
        self.done = True
        if not self._ends:
            self._stray()
        if self.implied_reason is not None:
            for index in sorted(self._spoke - self._ends.keys()):
                self.end_choice(events, index, self.implied_reason)
        if not self._ends:
            raise StreamTruncated("the upstream's stream ended without a finish reason")
        if cut := sorted(self._spoke - self._ends.keys()):
            raise StreamTruncated(f"the upstream's stream ended before choice {cut[0]} did")
        if not self.closed:
            raise StreamTruncated(f"the upstream's stream ended before its {self.closing!r}")
        self.calls.end_all(events, [i for i, end in self._ends.items() if end.reason in _CUT])
        ends = tuple(self._with_calls(self._ends[index]) for index in sorted(self._ends))
        # A count that content followed is no report of the whole answer.
        usage = None if self._stale else self._usage
        self.begin(events)
        events.append(Finish(ends, usage, self._dropped, self.extras or None))

    def _first_read(self, data: bytes) -> list[StreamEvent]:
        """Take the beginning of the body, or more of a document."""
        if self._whole is not None:
            self._whole.append(data)
        elif start := data.removeprefix(_BOM).lstrip(_SPACE):
            self._frames = self.framing(start[:1])
            if self._frames is not None:
                return AnswerDecoder.feed(self, start)  # not a subclass's: ``data`` came by it
            self._whole = [start]
        return []

    def _break(self, error: Exception) -> None:
        """Note why the answer broke."""
        if isinstance(error, EventTooLong):
            error = ProtocolError(f"the upstream's stream: {error}")
        elif isinstance(error, RecursionError):
            error = ProtocolError(f"an answer is nested too deep for {self.wire} wire")
        assert isinstance(error, BackendError)
        self.failure = error

    def _with_calls(self, end: ChoiceEnd) -> ChoiceEnd:
        """Return how a choice ended: a plain stop after calls is a wait for their results."""
        if end.reason != "stop" or not self.calls.any_of(end.index):
            return end
        return ChoiceEnd(end.index, "tool_calls", end.raw_reason)

    def _take_document(self, body: bytes, events: list[StreamEvent]) -> None:
        try:
            document = _decode(body)
        except _NOT_READ as error:
            lines = body.splitlines()
            if len(lines) > 1 and is_json(lines[0]):
                self._take_lines(lines, events)
                return
            raise StreamTruncated(f"the upstream's answer is not whole: {error}") from None
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        if not isinstance(document, dict):
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire")
        if says(document.get("error")):
            raise stream_error(document)
        try:
            self.document(document, events)
        except msgspec.ValidationError as error:
            what = f"the upstream's answer is not of {self.wire} wire: {error}"
            raise ProtocolError(what) from error

    def _take_lines(self, lines: list[bytes], events: list[StreamEvent]) -> None:
        """Take a stream that came as a chunk a line, without the framing of its wire."""
        for line in filter(bytes.strip, lines):
            try:
                self.payload(line, events)
            except _NOT_READ as error:
                self._drop(line, error, events)
            if self.done:
                break

    def _drop(self, payload: bytes, error: Exception, events: list[StreamEvent]) -> None:
        """Take the end marker of OpenAI's streams; count what else is not JSON.

        Raises:
            BackendError: the event's name says that it is an error.
            ProtocolError: it is JSON, but of another wire.
        """
        if payload.rstrip() == _DONE:
            self.complete(events)
            return
        if isinstance(self._frames, SSEDecoder) and self._frames.is_error:
            raise error_in(payload) or stream_error({"error": read_error(payload).message})
        payload = _HALF.sub(_UNKNOWN, payload)  # half a character must not take its chunk with it
        if not is_json(payload):
            self._dropped += 1
            return
        try:
            document = mend(_decode(payload), *self.shapes)
            self.payload(msgspec.json.encode(document), events)
        except _NOT_READ:
            wrong = ProtocolError(f"a chunk is not of {self.wire} wire: {error}")
            raise (error_in(payload) or wrong) from error

    def _stray(self) -> None:
        """Look for an error that came as a bare document, or as an event that says nothing.

        Google's come beside the events; others in shapes that no wire has.

        Raises:
            BackendError: there is one.
        """
        lines = self._frames.stray if isinstance(self._frames, SSEDecoder) else b""
        ended = bool(self._ends)
        error = error_in(lines, named=ended)
        if error is None and not ended:
            error = error_in(self._last)
        if error is not None:
            raise error
