"""OpenAI Chat Completions streams, as upstreams send them: bytes in, events out.

Lenient in what it reads, strict in what it promises: an answer stands only with a finish
reason for every choice that spoke and a clean end (design decision 7).

A chunk of text, which is nearly every chunk, is read by its few typed fields. A chunk that said
nothing or ended a choice is read a second time, whole, for what only its vendor says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from backends.errors import ProtocolError
from backends.types import (
    AnnotationDelta,
    FinishReason,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
)
from backends.wire.decoder import AnswerDecoder
from backends.wire.details import text_of
from backends.wire.error_words import says
from backends.wire.failure import stream_error
from backends.wire.lenient import read, words
from backends.wire.openai_calls import CallPlaces, calls_of, number_calls
from backends.wire.openai_chunk import (
    CallPiece,
    ChatChoice,
    ChatChunk,
    ChatDelta,
    decode,
    deep,
    joined,
    kind_of,
    list_of,
    old_reason,
    tokens_of,
    urls_of,
)
from backends.wire.openai_extras import citations, keep_extras, keep_filter, other_thought
from backends.wire.openai_thoughts import SignedThoughts, summaries
from backends.wire.openai_usage import read_usage
from backends.wire.reasons import reason_of
from backends.wire.think import ThinkTags
from backends.wire.values import count, json_text


class StreamDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "OpenAI's chat"
    shapes = (ChatChunk,)

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
        self._places = CallPlaces()
        self._sources: Any = None
        """The list of sources that came last: some repeat it with every chunk."""
        self._thought: set[int] = set()
        """Choices whose reasoning stands beside its details, if it has any."""
        self._signed = SignedThoughts()

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        chunk = decode(payload)
        if chunk.error or chunk.x_groq is not None:
            self._refuse(chunk, payload, events)
        if chunk.citations or chunk.search_results:
            self._sources = chunk.search_results or chunk.citations
        choices = chunk.choices
        if not self._started and (choices or chunk.id or chunk.usage is not None):
            self.begin(events, chunk.id, chunk.model)
        if choices and len(choices) == 1 and self._tags is None:
            choice = choices[0]
            delta = choice.delta
            if (
                delta is not None
                and (text := delta.content).__class__ is str
                and text
                and choice.logprobs is None
                and choice.finish_reason is None
                and choice.error is None
                and delta.tool_calls is None
                and not delta.reasoning
                and not delta.reasoning_content
                and not delta.reasoning_details
                and not delta.refusal
                and delta.images is None
                and delta.annotations is None
            ):
                # Nearly every chunk; what ``say`` does, without the calls. Signatures come without
                # text, or beside reasoning, so that nothing is asked for them here.
                index = choice.index
                events.append(TextDelta(index, text))
                self._spoke.add(index)
                self._stale = True
                if choice.content_filter_results:
                    keep_filter(self.extras, index, choice.content_filter_results)
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
            {**choice, "delta": choice.get("message"), "message": None}
            for choice in list_of(document.get("choices"))
            if isinstance(choice, dict)
        ]
        document = {**document, "choices": choices}
        chunk = read(document, ChatChunk)
        self.begin(events, chunk.id, chunk.model)
        self._sources = chunk.search_results or chunk.citations
        self._other_thoughts(choices, events)
        for choice in chunk.choices or ():
            if choice.delta is not None:
                number_calls(choice.delta)
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

    def complete(self, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; the sources of a whole answer are told once, after its text."""
        if self._ends and (notes := citations(self._sources)):
            self.begin(events)
            events.append(AnnotationDelta(0, notes))
        super().complete(events)

    def _drop(self, payload: bytes, error: Exception, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; with usage, the end marker says that every choice has ended."""
        if self._one_reason and self._ends and self._usage and payload.rstrip() == b"[DONE]":
            known = self._ends[min(self._ends)]
            for index in sorted(self._spoke - self._ends.keys()):
                self.end_choice(events, index, known.raw_reason, known.reason)
        super()._drop(payload, error, events)

    def _refuse(self, chunk: ChatChunk, payload: bytes, events: list[StreamEvent]) -> None:
        """Look for an error of the answer: what came beside it was said before it.

        How that ended says less than the error does.

        Raises:
            BackendError: there is one.
        """
        error = chunk.error if says(chunk.error) else deep(chunk.x_groq, "error")
        if not says(error):
            return
        for choice in chunk.choices or ():
            self._said(choice, events)
        raise stream_error(
            msgspec.json.decode(payload) if error is chunk.error else {"error": error}
        )

    def _choices(self, choices: list[ChatChoice], events: list[StreamEvent]) -> bool:
        """Take the choices of a chunk; say whether they did nothing but speak.

        Raises:
            BackendError: one of them says that it failed.
        """
        before = len(events)
        ended = False
        for choice in choices:
            self._said(choice, events)
            if choice.error and says(choice.error):
                raise stream_error({"error": choice.error})
            if finish := choice.finish_reason or old_reason(choice.finish_details):
                ended = True
                if isinstance(choice.message, dict) and choice.index not in self._spoke:
                    # A whole answer in an event; where deltas spoke, it repeats them.
                    message = read(choice.message, ChatDelta)
                    number_calls(message)
                    self._delta(choice.index, message, None, events)
                native = choice.native_finish_reason
                raw = native if isinstance(native, str) and native else finish
                self.end_choice(events, choice.index, raw, reason_of(finish))
        return len(events) > before and not ended

    def _said(self, choice: ChatChoice, events: list[StreamEvent]) -> None:
        """Take what a choice says, but not how it ended."""
        if choice.delta is not None or choice.logprobs:
            self._delta(choice.index, choice.delta or ChatDelta(), choice.logprobs, events)

    def _delta(
        self, index: int, delta: ChatDelta, logprobs: Any, events: list[StreamEvent]
    ) -> None:
        text = self._thoughts(index, delta, events)
        tokens = None if logprobs is None else tokens_of(logprobs)
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
            for url in urls_of(delta.images):
                self.say(events, ImageDelta(index, url))
        if delta.annotations and (
            notes := [note for note in list_of(delta.annotations) if isinstance(note, dict)]
        ):
            events.append(AnnotationDelta(index, notes))  # of the text, which calls may follow
        placed = [
            self._call(events, index, call, beside=number > 0)
            for number, call in enumerate(calls_of(delta))
        ]
        if delta.function_call is not None and not any(placed):  # else it repeats one
            self._call(events, index, CallPiece(function=delta.function_call))

    def _other_thoughts(self, choices: Any, events: list[StreamEvent]) -> None:
        """Add reasoning under names that few vendors have; in a stream no text stands beside it."""
        for choice in list_of(choices):
            delta = choice.get("delta")
            if not isinstance(delta, dict) or delta.get("reasoning_content"):
                continue  # which says the same
            if thought := other_thought(delta):
                self.say(events, ReasoningDelta(count(choice.get("index")) or 0, thought))

    def _thoughts(self, index: int, delta: ChatDelta, events: list[StreamEvent]) -> str:
        """Add the reasoning of a delta; return its visible text."""
        thought, text = self._words(delta.reasoning) or delta.reasoning_content or "", delta.content
        if not text and text.__class__ is not int:  # 0 is a token like another
            text = ""
        details = list_of(delta.reasoning_details) or self._signed.details(index, delta)
        if isinstance(text, list):
            for url in urls_of([p for p in text if kind_of(p) == "image_url"]):
                self.say(events, ImageDelta(index, url))
            thought += joined(text, "thinking") + text_of(summaries(text))
            text = joined(text, "text", "output_text")
        elif not isinstance(text, str):
            text = json_text(text)  # structured output that came as the object itself
        if thought:
            self._thought.add(index)
        elif details and index not in self._thought:
            thought = text_of(details)
        if len(details) > 1 and thought == text_of(details):
            for detail in details:  # each beside its own words: a signature is of these
                self.say(events, ReasoningDelta(index, text_of([detail]), [detail]))
        elif thought or details:
            self.say(events, ReasoningDelta(index, thought, details or None))
        return text

    def _words(self, reasoning: str | dict[str, Any] | None) -> str:
        """Return the words of a field of reasoning, which may be an object.

        Raises:
            ProtocolError: it says something else.
        """
        if not isinstance(reasoning, dict):
            return reasoning or ""
        try:
            return words("reasoning", {k: v for k, v in reasoning.items() if k != "signature"})
        except msgspec.ValidationError as error:
            raise ProtocolError(f"a chunk is not of {self.wire} wire: {error}") from error

    def _tagged(
        self, events: list[StreamEvent], index: int, pieces: list[tuple[bool, str]]
    ) -> None:
        for thought, text in pieces:
            self.say(events, ReasoningDelta(index, text) if thought else TextDelta(index, text))

    def _call(
        self, events: list[StreamEvent], index: int, call: CallPiece, *, beside: bool = False
    ) -> bool:
        """Add a piece of a call; say whether it was one."""
        if (piece := self._places.place(index, call, beside=beside)) is None:
            return False
        if piece.custom:
            self.calls.custom((index, piece.position))
        self.call(events, index, piece.position, piece.id, piece.name, piece.arguments)
        return True

    def _rest(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """Read what a chunk says beside the choices: usage, and a vendor's own.

        Raises:
            BackendError: it says that the answer failed.
        """
        if document.get("object") == "error":
            raise stream_error(document)
        usage = document.get("usage") or deep(document.get("x_groq"), "usage")  # Groq until 2025
        choices = [c for c in document.get("choices") or () if isinstance(c, dict)]
        if usage is None and choices:
            usage = choices[0].get("usage")  # Moonshot
        keep_extras(self.extras, document, choices, usage)
        self.report(read_usage(usage), events)
