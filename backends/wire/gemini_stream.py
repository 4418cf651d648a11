"""Google's generateContent, streamed or whole: bytes in, events out.

There is no end marker: the answer is complete where the body ends and every candidate that spoke
has a finish reason. Old models give one with every chunk, so the last counts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET

from backends.errors import ContentFiltered, UpstreamFailed
from backends.types import AnnotationDelta, ImageDelta, ReasoningDelta, StreamEvent, TextDelta
from backends.wire.decoder import AnswerDecoder, Framing
from backends.wire.details import GOOGLE
from backends.wire.failure import stream_error
from backends.wire.gemini_chunk import (
    UNTRANSLATED,
    VENDORS_OWN,
    Candidate,
    Chunk,
    Feedback,
    FunctionCall,
    Part,
    argument,
    block_word,
    finish_word,
    read_logprobs,
    read_usage,
)
from backends.wire.gemini_citations import Citations
from backends.wire.json_array import JSONArray
from backends.wire.json_path import put
from backends.wire.lenient import mend
from backends.wire.values import json_text


class _Counted(msgspec.Struct, rename="camel"):
    usage_metadata: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(Chunk).decode
_decode_counts = msgspec.json.Decoder(_Counted).decode


class _Speaker:
    """What later chunks of a candidate refer to."""

    __slots__ = ("arguments", "calls", "citations", "details", "index", "thinking")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls = 0
        self.arguments: dict[str, Any] | None = None
        """Of the last call, while they are still coming."""

        self.details = 0
        self.thinking = False
        """Whether a thought's text goes on with the last detail."""

        self.citations = Citations()

    @property
    def place(self) -> tuple[int, int]:
        """Where the last call stands."""
        return self.index, self.calls - 1

    def detail(self, kind: str, *, goes_on: bool = False) -> dict[str, Any]:
        """Return a detail with an index of its own, or of the thought that goes on."""
        self.details += not (goes_on and self.thinking)
        self.thinking = goes_on
        return {"type": kind, "format": GOOGLE, "index": self.details - 1}


class GeminiDecoder(AnswerDecoder):
    """Turns the body of one answer, server-sent events, an array or whole, into events.

    Arguments that are streamed go out when they are complete: their pieces name places in a
    document, in any order, so no text can be written of them before.
    """

    wire = "Google's generateContent"
    shapes = (Chunk,)

    def __init__(self, new_id: Callable[[], str] | None = None) -> None:
        """See ``AnswerDecoder``."""
        super().__init__(new_id)
        self._speakers: dict[int, _Speaker] = {}
        self._counted = b""
        """The last chunk with counts: all that it says of them is read at the end, once."""

    def framing(self, first: bytes) -> Framing | None:
        """See ``AnswerDecoder``: without ``alt=sse`` the stream is an array."""
        return JSONArray() if first == b"[" else super().framing(first)

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``.

        Raises:
            ContentFiltered: the prompt was blocked, and nothing was said.
        """
        chunk = _decode(payload)
        if not self._started and not chunk.error:
            self.begin(events, chunk.response_id, chunk.model_version)
        for position, candidate in enumerate(chunk.candidates or ()):
            index = position if candidate.index is None else candidate.index
            speaker = self._speakers.get(index)
            if speaker is None:
                speaker = self._speakers[index] = _Speaker(index)
            self._candidate(speaker, candidate, events)
        if chunk.error:
            raise stream_error(msgspec.json.decode(payload))
        if chunk.prompt_feedback is not None:
            self._feedback(chunk.prompt_feedback, events)
        if chunk.usage_metadata is not None:
            self._counted = payload
            self.report(read_usage(chunk.usage_metadata, silent=not self._spoke), events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer is one chunk."""
        self.payload(msgspec.json.encode(mend(document, Chunk)), events)

    def complete(self, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; an error may also follow chunks that each had a finish reason."""
        self._stray()
        if self._counted:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):  # damaged where none counts
                self.extras["usageMetadata"] = _decode_counts(self._counted).usage_metadata
        for speaker in self._speakers.values():
            self._cite(speaker, events, ended=True)
        super().complete(events)

    def _candidate(
        self, speaker: _Speaker, candidate: Candidate, events: list[StreamEvent]
    ) -> None:
        index = speaker.index
        parts = (candidate.content.parts if candidate.content is not None else None) or ()
        logprobs = None
        if candidate.logprobs_result is not None:
            logprobs = read_logprobs(candidate.logprobs_result)
        own = (
            candidate.safety_ratings is not None
            or candidate.avg_logprobs is not None
            or candidate.finish_message is not None
            or candidate.grounding_metadata is not None
            or candidate.citation_metadata is not None
            or candidate.url_context_metadata is not None
        )  # spelled out: this runs for every chunk
        signature = None
        if own and parts and (last := parts[-1]).text is not None and not last.thought:
            # What is cited is of the text, which a signature ends.
            signature = last.thought_signature
            parts = [*parts[:-1], msgspec.structs.replace(last, thought_signature=None)]
        for part in parts:
            if part.text and not part.thought:
                speaker.citations.said(part.text)
                self.say(events, TextDelta(index, part.text, logprobs))
                logprobs = None  # they are of the chunk, not of each part
                if part.thought_signature:
                    self._sign(speaker, part.thought_signature, events)
            else:
                self._part(speaker, part, events)
        if logprobs is not None:
            self.say(events, TextDelta(index, "", logprobs))
        if own:
            self._vendors_own(speaker, candidate, events)
        if signature:
            self._sign(speaker, signature, events)
        raw = candidate.finish_reason and finish_word(candidate.finish_reason)
        if not raw and parts and index in self._ends:
            raw = self._ends[index].raw_reason  # it came too early, and stands for the rest too
        if raw:
            self._finish(speaker, candidate, raw, events)

    def _finish(
        self, speaker: _Speaker, candidate: Candidate, raw: str, events: list[StreamEvent]
    ) -> None:
        """A candidate has ended.

        Raises:
            UpstreamFailed: by an error; with Google's words for it.
        """
        self._close(speaker, events)
        try:
            self.end_choice(events, speaker.index, raw)
        except UpstreamFailed as error:
            if isinstance(words := candidate.finish_message, str) and words:
                raise UpstreamFailed(f"{error.message}: {words}") from None
            raise

    def _part(self, speaker: _Speaker, part: Part, events: list[StreamEvent]) -> None:
        """Take a part that is no visible text."""
        signature, blob = part.thought_signature, part.inline_data
        if part.function_call is not None:
            self._function_call(speaker, part.function_call, events)
            if signature and speaker.calls:
                self._sign(speaker, signature, events, of=self.calls.id_at(speaker.place))
            return
        if part.thought and blob is None:
            self._thought(speaker, part, events)
            return
        if blob is not None and blob.mime_type.startswith("image/") and not part.thought:
            url = f"data:{blob.mime_type};base64,{blob.data}"
            self.say(events, ImageDelta(speaker.index, url))
        elif kept := {
            native: value
            for name, native in UNTRANSLATED.items()
            if (value := getattr(part, name)) is not None
        }:  # drafts of images, sound, and what Google's own tools did
            signed = {**kept, "thoughtSignature": signature} if signature else kept
            self._extra(speaker).setdefault("parts", []).append(signed)
            return
        if signature:
            self._sign(speaker, signature, events)

    def _thought(self, speaker: _Speaker, part: Part, events: list[StreamEvent]) -> None:
        text, signature = part.text or "", part.thought_signature
        if not text and not signature:
            return
        detail = {**speaker.detail("reasoning.text", goes_on=True), "text": text}
        if signature:
            detail["signature"] = signature
            speaker.thinking = False
        self.say(events, ReasoningDelta(speaker.index, text, [detail]))

    def _sign(
        self, speaker: _Speaker, signature: str, events: list[StreamEvent], *, of: str = ""
    ) -> None:
        """Add the signature of a call, or of the text."""
        detail = {**speaker.detail("reasoning.encrypted"), "data": signature}
        if of:
            detail["id"] = of
        self.say(events, ReasoningDelta(speaker.index, "", [detail]))

    def _function_call(
        self, speaker: _Speaker, call: FunctionCall, events: list[StreamEvent]
    ) -> None:
        """Take a whole call, or a piece: pieces after the first have no name."""
        if call.name or speaker.arguments is None:
            self._close(speaker, events)
            if not (call.name or call.id or call.args or call.partial_args):
                return  # an end without a beginning
            speaker.calls += 1
            speaker.arguments = {}
            self.call(events, *speaker.place, call.id, call.name or "tool")
        speaker.arguments.update(call.args or {})
        for piece in call.partial_args or ():
            if (value := argument(piece)) is not UNSET:
                put(speaker.arguments, piece.json_path, value)
        if not call.will_continue:
            self._close(speaker, events)

    def _close(self, speaker: _Speaker, events: list[StreamEvent]) -> None:
        """The last call's arguments are complete, if they were not."""
        if speaker.arguments is not None:
            self.call(events, *speaker.place, arguments=json_text(speaker.arguments))
            self.calls.end(events, speaker.place)
            speaker.arguments = None

    def _vendors_own(
        self, speaker: _Speaker, candidate: Candidate, events: list[StreamEvent]
    ) -> None:
        """Keep what has no place in the canonical answer; tell of what is cited."""
        for name, native in VENDORS_OWN.items():
            if (value := getattr(candidate, name)) is not None:
                self._extra(speaker)[native] = value
        grounding, citations = candidate.grounding_metadata, candidate.citation_metadata
        self._cite(speaker, events, grounding, citations, ended=bool(candidate.finish_reason))

    def _cite(
        self,
        speaker: _Speaker,
        events: list[StreamEvent],
        grounding: Any = None,
        citations: Any = None,
        *,
        ended: bool,
    ) -> None:
        """Tell of what is cited."""
        if annotations := speaker.citations.read(grounding, citations, ended=ended):
            events.append(AnnotationDelta(speaker.index, annotations))

    def _extra(self, speaker: _Speaker) -> dict[str, Any]:
        """Return what only Google says of a candidate; the last word of each kind counts."""
        candidates = self.extras.setdefault("candidates", {})
        extra: dict[str, Any] = candidates.setdefault(str(speaker.index), {})
        return extra

    def _feedback(self, feedback: Feedback, events: list[StreamEvent]) -> None:
        """A blocked prompt is a refused request, unless an answer had begun: that one ends.

        As a refusal it costs nothing and is asked nowhere else (design decision 10); a finish
        without any output would be charged, and would look like an empty answer.
        """
        word = block_word(feedback.block_reason)
        if word is None:
            return
        if not self._spoke:
            raise ContentFiltered(
                feedback.block_reason_message or f"the prompt was blocked: {word}",
                upstream_code=word,
            )
        for index in sorted(self._spoke - self._ends.keys()):
            self._close(self._speakers[index], events)
            self.end_choice(events, index, word, "content_filter")
