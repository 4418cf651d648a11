"""OpenAI Responses streams and whole answers, as upstreams send them: bytes in, events out.

An answer is a list of items, and each is told up to three times: in deltas, when it is done, and
in the response at the end. What was said is counted by its place (``output_index``: some servers
change ``item_id`` from event to event), so that what only a later telling holds is not lost, and
nothing is said twice. (OpenAI's API reference, Responses streaming events, read 2026-11.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from backends.errors import ProtocolError, StreamTruncated, UpstreamFailed
from backends.types import (
    AnnotationDelta,
    FinishReason,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
)
from backends.wire.decoder import AnswerDecoder
from backends.wire.details import OPENAI
from backends.wire.failure import stream_error
from backends.wire.openai_usage import read_usage
from backends.wire.reasons import reason_of
from backends.wire.values import count, json_text, word

Place: TypeAlias = int | str | None
"""Where an item stands: its ``output_index``, or its id where a server gives no index."""

_UNFINISHED: Final = frozenset({"in_progress", "queued"})


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    output_index: int | None = None
    content_index: int | None = None
    summary_index: int | None = None
    item_id: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    logprobs: Any = None
    annotation: Any = None
    item: Any = None
    response: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class ResponsesDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events.

    ``extras["output_items"]`` holds the items that are no text, reasoning or call of a function:
    what the vendor's own tools did.
    """

    wire = "OpenAI's Responses"
    shapes = (_Event,)

    reasoning_format = OPENAI
    """The ``format`` of reasoning details; another vendor's adapter sets its own."""

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """See ``AnswerDecoder``."""
        super().__init__(new_id)
        self._said: dict[tuple[Place, str, int], int] = {}
        self._before: dict[tuple[Place, str, int], int] = {}
        """How many characters of text precede each part of text."""
        self._newest: tuple[Place, str, int] | None = None
        """The part of text that began last."""
        self._positions: dict[Place, int] = {}
        self._ids: dict[Place, str | None] = {}
        self._places: dict[str, list[Place]] = {}
        self._entries: dict[tuple[Place, str, int], int] = {}
        self._over: set[Place] = set()

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        event = _decode(payload)
        kind = event.type
        place: Place = event.output_index
        if place is None:
            place = word(event.item_id)
        if kind == "response.output_text.delta":
            if not self._started:
                self.begin(events)
            self._add(events, (place, "text", event.content_index or 0), event.delta, event)
        elif kind in _TERMINAL:
            self._settle(events, event.response, kind, event.error)
        elif kind in ("error", "response.error") or event.error:
            raise stream_error(msgspec.json.decode(payload))
        elif kind.startswith("response."):
            response = event.response if isinstance(event.response, dict) else {}
            self.begin(events, response.get("id"), response.get("model"))
            self._other(events, place, event)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        if not isinstance(document.get("output"), list):
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire")
        self.begin(events, document.get("id"), document.get("model"))
        self._settle(events, document, f"response.{document.get('status')}", None)

    def _other(self, events: list[StreamEvent], place: Place, event: _Event) -> None:
        """Take an event of one item that is no piece of text."""
        kind = event.type
        if kind == "response.output_item.added" and isinstance(event.item, dict):
            self._open(events, self._place(event, event.item), event.item)
        elif kind == "response.output_item.done" and isinstance(event.item, dict):
            self._close(events, self._place(event, event.item), event.item)
        elif kind == "response.content_part.added" and event.content_index:
            self._part(events, place, event.content_index)
        elif kind == "response.output_text.annotation.added":
            self._annotate(events, (place, "annotations", event.content_index or 0), event)
        elif (told := _TOLD.get(kind)) is not None:
            what, field = told
            part = event.summary_index if what == "summary" else event.content_index
            value = getattr(event, field)
            value = value.get("text") if isinstance(value, dict) else value
            if field == "delta":
                self._add(events, (place, what, part or 0), value, event)
            else:
                self._rest(events, (place, what, part or 0), value, event)

    def _place(self, event: _Event, item: Mapping[str, Any]) -> Place:
        return word(item.get("id")) if event.output_index is None else event.output_index

    def _open(self, events: list[StreamEvent], place: Place, item: Mapping[str, Any]) -> None:
        """An item begins; its first id names it, whatever later events call it."""
        if place not in self._ids:
            self._ids[place] = None
            kind, phase = str(item.get("type")), word(item.get("phase"))
            if kind == "message" and (phase or self._places.get(kind)):
                events.append(MessageStart(0, phase))
            self._places.setdefault(kind, []).append(place)
        self._ids[place] = self._ids[place] or word(item.get("id"))
        if (kind := _kind(item)) in _CALLS:
            position = self._positions.setdefault(place, len(self._positions))
            if kind == "custom_tool_call":
                self.calls.custom((0, position))
            name = item.get("name")
            self.call(events, 0, position, item.get("call_id") or item.get("id"), word(name))

    def _close(self, events: list[StreamEvent], place: Place, item: Mapping[str, Any]) -> None:
        """An item is told whole: say what of it was not said yet."""
        self._open(events, place, item)
        kind = _kind(item)
        if kind == "message":
            self._message(events, place, item)
        elif kind in _CALLS:
            words = _CALLS[kind]
            self._rest(events, (place, words, 0), json_text(item.get(words)))
            cut = item.get("status") == "incomplete"
            self.calls.end(events, (0, self._positions[place]), cut=cut)
        elif kind == "reasoning":
            for what, parts in (("summary", item.get("summary")), ("thought", item.get("content"))):
                for part, entry in _entries(parts):
                    self._rest(events, (place, what, part), entry.get("text"))
            # Only the last telling holds the whole of what is encrypted.
            self._rest(events, (place, "data", 0), item.get("encrypted_content"))
        elif place not in self._over:
            self._tool(events, item)
        self._over.add(place)

    def _message(self, events: list[StreamEvent], place: Place, item: Mapping[str, Any]) -> None:
        for part, entry in _entries(item.get("content")):
            if entry.get("type") == "refusal":
                self._rest(events, (place, "refusal", part), entry.get("refusal"))
                continue
            if part:
                self._part(events, place, part)
            told = _Event(logprobs=entry.get("logprobs"))
            self._rest(events, (place, "text", part), entry.get("text"), told)
            key = (place, "annotations", part)
            for _, annotation in _entries(entry.get("annotations"))[self._said.get(key, 0) :]:
                self._annotate(events, key, _Event(annotation=annotation))

    def _length(self) -> int:
        """Return how many characters of text there are."""
        last = self._newest
        return 0 if last is None else self._before[last] + self._said[last]

    def _part(self, events: list[StreamEvent], place: Place, part: int) -> None:
        """Another part of a message begins, unless it has."""
        key = (place, "part", part)
        if key not in self._said:
            self._said[key] = 1
            events.append(PartStart(0))

    def _tool(self, events: list[StreamEvent], item: Mapping[str, Any]) -> None:
        """Keep what a tool of the vendor did; an image that it made is content."""
        image = item.get("result") if item.get("type") == "image_generation_call" else None
        if isinstance(image, str) and image:
            if not image.startswith(("http", "data:")):
                image = f"data:image/{item.get('output_format') or 'png'};base64,{image}"
            self.say(events, ImageDelta(0, image))
            item = {name: value for name, value in item.items() if name != "result"}
        self.extras.setdefault("output_items", []).append(item)

    def _annotate(
        self, events: list[StreamEvent], key: tuple[Place, str, int], event: _Event
    ) -> None:
        annotation = event.annotation
        if not isinstance(annotation, dict) or not annotation:
            return
        self._said[key] = self._said.get(key, 0) + 1
        if annotation.get("type") == "url_citation" and "url_citation" not in annotation:
            fields = {name: value for name, value in annotation.items() if name != "type"}
            before = self._before.get((key[0], "text", key[2]))
            before = self._length() if before is None else before
            for name in ("start_index", "end_index"):
                if (place := count(fields.get(name))) is not None:
                    fields[name] = place + before  # told by the part's text; ours, by the answer's
            annotation = {"type": "url_citation", "url_citation": fields}
        events.append(AnnotationDelta(0, [annotation]))

    def _rest(
        self,
        events: list[StreamEvent],
        key: tuple[Place, str, int],
        whole: Any,
        event: _Event | None = None,
    ) -> None:
        """Say of a text that is told whole what was not said."""
        said = self._said.get(key, 0)
        if isinstance(whole, str) and len(whole) > said:
            self._add(events, key, whole[said:], None if said else event)

    def _add(
        self,
        events: list[StreamEvent],
        key: tuple[Place, str, int],
        piece: Any,
        event: _Event | None = None,
    ) -> None:
        """Say a piece of text."""
        logprobs = event.logprobs if event is not None else None
        if not isinstance(piece, str) or not (piece or logprobs):
            return
        place, what, _ = key
        if what == "text" and key not in self._before:
            self._before[key], self._newest = self._length(), key
        self._said[key] = self._said.get(key, 0) + len(piece)
        if place not in self._ids:  # a server that announces no items
            self._open(events, place, {"type": _ITEM_OF[what]})
        if what == "text":
            tokens = {"content": logprobs} if logprobs and isinstance(logprobs, list) else None
            self.say(events, TextDelta(0, piece, tokens))
        elif what == "refusal":
            self.say(events, RefusalDelta(0, piece))
        elif what in ("arguments", "input"):
            if (position := self._positions.get(place)) is not None:  # else the vendor's own
                self.call(events, 0, position, arguments=piece)
        else:
            detail_type, field = _DETAILS[what]
            detail: dict[str, Any] = {"type": detail_type, field: piece}
            detail["format"] = self.reasoning_format
            detail["index"] = self._entries.setdefault(key, len(self._entries))
            if name := self._ids.get(place):
                detail["id"] = name
            self.say(events, ReasoningDelta(0, "" if what == "data" else piece, [detail]))

    def _settle(self, events: list[StreamEvent], response: Any, kind: str, error: Any) -> None:
        """The response is over: say what is left of it, then how it ended.

        Raises:
            BackendError: it failed.
        """
        response = response if isinstance(response, dict) else {}
        self.begin(events, response.get("id"), response.get("model"))
        for place, item in self._last_told(response.get("output")):
            if place not in self._over:
                self._close(events, place, item)
        status = word(response.get("status")) or kind.removeprefix("response.")
        error = error or response.get("error")
        if status in ("failed", "cancelled") or error:
            raise (
                stream_error({"error": error})
                if error
                else UpstreamFailed(f"the upstream ended its answer with status {status!r}")
            )
        if status in _UNFINISHED and kind == f"response.{status}":
            raise StreamTruncated(f"the upstream's answer is only {status!r}")
        raw, reason = _ending(status, response.get("incomplete_details"))
        self.end_choice(events, 0, raw, reason)
        self.report(read_usage(response.get("usage")), events)
        self.complete(events)

    def _last_told(self, output: Any) -> list[tuple[Place, dict[str, Any]]]:
        """Return the items of the whole response at their places in the stream.

        Neither id nor position is the same there with every server: the order within a type is.
        """
        known = {kind: iter(places) for kind, places in self._places.items()}
        return [
            (next(known.get(str(item.get("type")), iter(())), f"output[{at}]"), item)
            for at, item in _entries(output)
        ]


_CALLS: Final[Mapping[str, str]] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Items that are calls, and what they say to whom they call."""

_XAI_TOOLS: Final = frozenset(
    {"x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"}
)
"""What xAI's search calls by itself, and tells as calls of custom tools (docs.x.ai, "X Search")."""

_TERMINAL: Final = frozenset(
    f"response.{word}" for word in ("completed", "incomplete", "failed", "cancelled", "done")
)
_TOLD: Final[Mapping[str, tuple[str, str]]] = {
    "response.output_text.done": ("text", "text"),
    "response.refusal.delta": ("refusal", "delta"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.function_call_arguments.delta": ("arguments", "delta"),
    "response.function_call_arguments.done": ("arguments", "arguments"),
    "response.custom_tool_call_input.delta": ("input", "delta"),
    "response.custom_tool_call_input.done": ("input", "input"),
    "response.reasoning_summary_text.delta": ("summary", "delta"),
    "response.reasoning_summary_text.done": ("summary", "text"),
    "response.reasoning.delta": ("thought", "delta"),
    "response.reasoning.done": ("thought", "text"),
    "response.reasoning_text.delta": ("thought", "delta"),
    "response.reasoning_text.done": ("thought", "text"),
}
_ITEM_OF: Final[Mapping[str, str]] = {
    "text": "message",
    "refusal": "message",
    "arguments": "function_call",
    "input": "custom_tool_call",
    "summary": "reasoning",
    "thought": "reasoning",
    "data": "reasoning",
}
_DETAILS: Final[Mapping[str, tuple[str, str]]] = {
    "summary": ("reasoning.summary", "summary"),
    "thought": ("reasoning.text", "text"),
    "data": ("reasoning.encrypted", "data"),
}


def _kind(item: Mapping[str, Any]) -> str:
    """Return an item's type; a call that the vendor made itself is none of its client's."""
    kind = str(item.get("type"))
    own = kind == "custom_tool_call" and word(item.get("name")) in _XAI_TOOLS
    return "server_tool_call" if own else kind


def _ending(status: str, details: Any) -> tuple[str, FinishReason | None]:
    """Return the native word for an end, and its meaning where the word alone does not say it."""
    if status != "incomplete":
        return ("completed" if status == "done" else status), None
    raw = details.get("reason") if isinstance(details, dict) else None
    raw = raw if isinstance(raw, str) and raw else "incomplete"
    reason = reason_of(raw)
    return raw, "length" if reason == "stop" else reason  # cut, whatever the word for it


def _entries(parts: Any) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a list with their places; what is none counts, and is empty."""
    if not isinstance(parts, list):
        return []
    return [(at, part if isinstance(part, dict) else {}) for at, part in enumerate(parts)]
