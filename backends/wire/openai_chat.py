"""OpenAI Chat Completions streams, as upstreams send them: bytes in, events out.

Lenient in what it reads, strict in what it promises: an answer stands only with a finish
reason for every choice that spoke and a clean end (design decision 7).

A chunk of text, which is nearly every chunk, is read by its few typed fields. A chunk that said
nothing or ended a choice is read a second time, whole, for what only its vendor says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backends.types import (
    AnnotationDelta,
    FinishReason,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
)
from backends.wire.calls import is_whole
from backends.wire.decoder import AnswerDecoder
from backends.wire.details import text_of
from backends.wire.failure import stream_error
from backends.wire.lenient import read
from backends.wire.openai_extras import citations, keep_extras, keep_filter, other_thought
from backends.wire.openai_usage import read_usage
from backends.wire.reasons import reason_of
from backends.wire.think import ThinkTags
from backends.wire.values import count, json_text, word


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: Any = None
    function: _Function | None = None
    custom: _Custom | None = None
    type: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    """The last three of a call that is flat, as Responses and Anthropic have them."""


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_details: Any = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    images: Any = None
    annotations: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    native_finish_reason: Any = None
    logprobs: Any = None
    content_filter_results: Any = None
    finish_details: Any = None


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
    shapes = (_Chunk,)

    def __init__(
        self,
        new_id: Callable[[], str] | None = None,
        *,
        implied_reason: str | None = None,
        think_tags: bool = False,
        one_reason: bool = False,
    ) -> None:
        """Start before the first byte.

        Args:
            new_id: names calls that an upstream left nameless.
            implied_reason: the reason of choices that end without one, where a vendor sends none.
            think_tags: reasoning stands in the text, between ``<think>`` and ``</think>``.
            one_reason: the vendor gives one reason for all choices of a stream.
        """
        super().__init__(new_id)
        self.implied_reason = implied_reason
        self._one_reason = one_reason
        self._tags: dict[int, ThinkTags] | None = {} if think_tags else None
        self._places: dict[tuple[int, int | str], tuple[int, str]] = {}
        self._calls_in: dict[int, int] = {}
        self._told: dict[tuple[int, int], tuple[str, list[str]]] = {}
        """Of each call its name and the pieces of its arguments."""
        self._cited = False
        self._thought: set[int] = set()
        """Choices whose reasoning stands beside its details, if it has any."""

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        chunk = _decode(payload)
        if chunk.error:
            # What came beside the error was said before it.
            self._choices(chunk.choices or [], events)
            raise stream_error(msgspec.json.decode(payload))
        choices = chunk.choices
        if not self._started and (choices or chunk.id or chunk.usage is not None):
            self.begin(events, chunk.id, chunk.model)
        if choices and len(choices) == 1 and self._tags is None:
            choice = choices[0]
            delta = choice.delta
            if (
                delta is not None
                and delta.content.__class__ is str
                and delta.content
                and choice.logprobs is None
                and choice.finish_reason is None
                and delta.tool_calls is None
                and not delta.reasoning
                and not delta.reasoning_content
                and not delta.reasoning_details
                and not delta.refusal
                and delta.images is None
                and delta.annotations is None
            ):
                # Nearly every chunk; what ``say`` does, without the calls.
                events.append(TextDelta(choice.index, delta.content))
                self._spoke.add(choice.index)
                self._stale = True
                if choice.content_filter_results:
                    keep_filter(self.extras, choice.index, choice.content_filter_results)
                if chunk.usage is not None:
                    self.report(read_usage(chunk.usage), events)
                return
        if self._choices(choices or [], events):
            if chunk.usage is not None:
                self.report(read_usage(chunk.usage), events)
        else:
            whole = msgspec.json.decode(payload)
            if b'"reasoning_text"' in payload or b'"thinking"' in payload:
                self._other_thoughts(whole.get("choices"), events)
            self._rest(whole, events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer is one chunk whose deltas are messages."""
        choices = [
            {**choice, "delta": choice.get("message")}
            for choice in _list(document.get("choices"))
            if isinstance(choice, dict)
        ]
        document = {**document, "choices": choices}
        chunk = read(document, _Chunk)
        self.begin(events, chunk.id, chunk.model)
        self._other_thoughts(choices, events)
        self._choices(chunk.choices or [], events)
        self._rest(document, events)

    def end_choice(
        self,
        events: list[StreamEvent],
        index: int,
        raw: str,
        reason: FinishReason | None = None,
    ) -> None:
        """See ``AnswerDecoder``; text that may have been the beginning of a tag goes out first."""
        if self._tags and (tags := self._tags.pop(index, None)):
            self._tagged(events, index, tags.end())
        super().end_choice(events, index, raw, reason)

    def _drop(self, payload: bytes, error: Exception, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; with usage, the end marker says that every choice has ended."""
        if self._one_reason and self._ends and self._usage and payload.rstrip() == b"[DONE]":
            known = self._ends[min(self._ends)]
            for index in sorted(self._spoke - self._ends.keys()):
                self.end_choice(events, index, known.raw_reason, known.reason)
        super()._drop(payload, error, events)

    def _choices(self, choices: list[_Choice], events: list[StreamEvent]) -> bool:
        """Take the choices of a chunk; say whether they did nothing but speak."""
        before = len(events)
        ended = False
        for choice in choices:
            if choice.delta is not None or choice.logprobs:
                self._delta(choice.index, choice.delta or _Delta(), choice.logprobs, events)
            if finish := choice.finish_reason or _old_reason(choice.finish_details):
                ended = True
                native = choice.native_finish_reason
                raw = native if isinstance(native, str) and native else finish
                self.end_choice(events, choice.index, raw, reason_of(finish))
        return len(events) > before and not ended

    def _delta(self, index: int, delta: _Delta, logprobs: Any, events: list[StreamEvent]) -> None:
        text = self._thoughts(index, delta, events)
        tokens = None if logprobs is None else _tokens(logprobs)
        if text and self._tags is not None:
            self._tagged(events, index, self._tags.setdefault(index, ThinkTags()).feed(text))
        elif text:
            self.say(events, TextDelta(index, text, tokens))
            tokens = None
        if tokens and (tokens.get("content") or tokens.get("refusal")):
            # Of half a character, of the end, of a refusal: they need no text beside them.
            self.say(events, TextDelta(index, "", tokens))
        if delta.refusal:
            self.say(events, RefusalDelta(index, delta.refusal))
        if delta.images:
            for url in _urls(delta.images):
                self.say(events, ImageDelta(index, url))
        if delta.annotations and (
            notes := [note for note in _list(delta.annotations) if isinstance(note, dict)]
        ):
            events.append(AnnotationDelta(index, notes))  # of the text, which calls may follow
        for call in delta.tool_calls or ():
            self._call(events, index, call)
        if delta.function_call is not None:
            self._call(events, index, _ToolCall(function=delta.function_call))

    def _other_thoughts(self, choices: Any, events: list[StreamEvent]) -> None:
        """Add reasoning under names that few vendors have; in a stream no text stands beside it."""
        for choice in _list(choices):
            delta = choice.get("delta")
            if isinstance(delta, dict) and (thought := other_thought(delta)):
                self.say(events, ReasoningDelta(count(choice.get("index")) or 0, thought))

    def _thoughts(self, index: int, delta: _Delta, events: list[StreamEvent]) -> str:
        """Add the reasoning of a delta; return its visible text."""
        thought, text = delta.reasoning or delta.reasoning_content or "", delta.content
        if not text and text.__class__ is not int:  # 0 is a token like another
            text = ""
        if isinstance(text, list):
            for url in _urls([p for p in text if _kind(p) == "image_url"]):
                self.say(events, ImageDelta(index, url))
            thought += _joined(text, "thinking")
            text = _joined(text, "text", "output_text")
        elif not isinstance(text, str):
            text = json_text(text)  # structured output that came as the object itself
        details = delta.reasoning_details if isinstance(delta.reasoning_details, list) else None
        if thought:
            self._thought.add(index)
        elif details and index not in self._thought:
            thought = text_of(details)
        if thought or details:
            self.say(events, ReasoningDelta(index, thought, details or None))
        return text

    def _tagged(
        self, events: list[StreamEvent], index: int, pieces: list[tuple[bool, str]]
    ) -> None:
        for thought, text in pieces:
            self.say(events, ReasoningDelta(index, text) if thought else TextDelta(index, text))

    def _call(self, events: list[StreamEvent], index: int, call: _ToolCall) -> None:
        """Add a piece of a call at its place: calls count in the order in which they begin.

        A piece without position belongs to the last call, unless it names another. A position
        that is used again with another id and a name is another call; where there are no ids, with
        another name, or when the arguments so far are whole.
        """
        function, custom = call.function, call.custom
        if function is None and custom is None:
            function, custom = _flat(call)
        function = function or _Function()
        if custom is not None and (custom.name or custom.input):  # some send it empty beside
            function = _Function(custom.name, custom.input)
        else:
            custom = None
        id, name = word(call.id) or "", function.name or ""  # noqa: A001
        arguments = json_text(function.arguments)
        if not (id or name or arguments):
            return
        key = (index, "last" if call.index is None else call.index)
        place = self._places.get(key)
        known, told = self._told.get((index, place[0]), ("", [])) if place else ("", [])
        if place is None:
            begins = True
        elif not place[1] and (
            (name and known and name != known)
            or (arguments.lstrip().startswith("{") and is_whole(told))
        ):
            begins, name = True, name or known
        elif id and place[1]:
            begins = id != place[1] and bool(name)
        else:
            begins = bool(name) and call.index is None
        if begins:
            number = self._calls_in.get(index, 0)
            self._calls_in[index] = number + 1
            place, told = (number, id), []
            self._told[index, number] = (name, told)
        assert place is not None
        self._places[key] = self._places[index, "last"] = (place[0], place[1] or id)
        if custom is not None:
            self.calls.custom((index, place[0]))
        told.append(arguments)
        self.call(events, index, place[0], id, name, arguments)

    def _rest(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """Read what a chunk says beside the choices: usage, citations, a vendor's own.

        Raises:
            BackendError: it says that the answer failed.
        """
        if document.get("object") == "error":
            raise stream_error(document)
        usage = document.get("usage") or _deep(document, "x_groq", "usage")  # Groq until 2025
        choices = [c for c in document.get("choices") or () if isinstance(c, dict)]
        if usage is None and choices:
            usage = choices[0].get("usage")  # Moonshot
        keep_extras(self.extras, document, choices, usage)
        if not self._cited and (notes := citations(document)):
            self._cited = True
            self.begin(events)
            events.append(AnnotationDelta(0, notes))
        self.report(read_usage(usage), events)


def _flat(call: _ToolCall) -> tuple[_Function | None, _Custom | None]:
    """Return what a call says that names its function itself."""
    name = word(call.name)
    if call.type in ("custom", "custom_tool_call"):
        return None, _Custom(name, call.input)
    return _Function(name, call.input if call.arguments is None else call.arguments), None


def _tokens(logprobs: Any) -> dict[str, Any] | None:
    """Read log probabilities; their lists of tokens are lists, whatever else a vendor adds."""
    if not isinstance(logprobs, dict):
        return None
    lists = ("content", "refusal")
    return {k: v for k, v in logprobs.items() if k not in lists or v is None or v.__class__ is list}


def _old_reason(details: Any) -> str:
    """Read the reason of OpenAI's first vision models, which stands in an object."""
    found = details.get("type") if isinstance(details, dict) else None
    return found if isinstance(found, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _deep(document: Mapping[str, Any], group: str, name: str) -> Any:
    inner = document.get(group)
    return inner.get(name) if isinstance(inner, dict) else None


def _urls(images: Any) -> list[str]:
    """Read the images of a delta: parts of type ``image_url``, as OpenRouter sends them."""
    found = []
    for image in _list(images):
        link = image.get("image_url") if isinstance(image, dict) else None
        url = link.get("url") if isinstance(link, dict) else link
        if isinstance(url, str) and url:
            found.append(url)
    return found


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def _joined(parts: list[Any], kind: str, alias: str = "") -> str:
    """Join the texts of one kind in content that came as a list of typed parts."""
    pieces = []
    for part in parts:
        if _kind(part) in (kind, alias or kind):
            piece = part.get(kind)
            if isinstance(piece, list) and kind != "text":
                piece = _joined(piece, "text")
            pieces.append(piece)
    return "".join(piece for piece in pieces if isinstance(piece, str))
