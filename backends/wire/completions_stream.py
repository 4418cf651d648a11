"""OpenAI's legacy Completions, as upstreams send them: bytes in, events out.

Source: OpenAI's API reference, "The completion object" (a chunk of a stream is one as well), and
recorded answers of OpenAI, Azure, vLLM and Together.
"""

from __future__ import annotations

from typing import Any

import msgspec

from backends.types import StreamEvent, TextDelta
from backends.wire.decoder import AnswerDecoder
from backends.wire.error_words import says
from backends.wire.failure import stream_error
from backends.wire.legacy_logprobs import from_legacy
from backends.wire.lenient import read
from backends.wire.openai_extras import keep_extras
from backends.wire.openai_usage import read_usage


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class CompletionsDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events."""

    wire = "OpenAI's completions"
    shapes = (_Chunk,)

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        chunk = _decode(payload)
        if chunk.error and says(chunk.error):
            for choice in chunk.choices or ():
                self._said(choice, events)
            raise stream_error(msgspec.json.decode(payload))
        if not self._started:
            self.begin(events, chunk.id, chunk.model)
        if self._choices(chunk, events):
            if chunk.usage is not None:
                self.report(read_usage(chunk.usage), events)
        else:
            self._rest(msgspec.json.decode(payload), events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``: a whole answer has the shape of a chunk."""
        chunk = read(document, _Chunk)
        self.begin(events, chunk.id, chunk.model)
        self._choices(chunk, events)
        self._rest(document, events)

    def _choices(self, chunk: _Chunk, events: list[StreamEvent]) -> bool:
        """Take the choices of a chunk; say whether they did nothing but speak.

        Raises:
            BackendError: one of them says that it failed.
        """
        before = len(events)
        ended = False
        for choice in chunk.choices or ():
            self._said(choice, events)
            if choice.error and says(choice.error):
                raise stream_error({"error": choice.error})
            if choice.finish_reason:
                ended = True
                self.end_choice(events, choice.index, choice.finish_reason)
        return len(events) > before and not ended

    def _said(self, choice: _Choice, events: list[StreamEvent]) -> None:
        """Take what a choice says, but not how it ended."""
        if choice.text:
            said = TextDelta(choice.index, choice.text, _logprobs(choice.logprobs))
            self.say(events, said)
        elif (tokens := _logprobs(choice.logprobs)) is not None:
            self.say(events, TextDelta(choice.index, "", tokens))  # half a character

    def _rest(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        if document.get("object") == "error":
            raise stream_error(document)
        usage = document.get("usage")
        choices = [c for c in document.get("choices") or () if isinstance(c, dict)]
        keep_extras(self.extras, document, choices, usage)
        self.report(read_usage(usage), events)


def _logprobs(document: Any) -> Any:
    """Return log probabilities in chat's shape; None for none."""
    if document is None:
        return None
    return from_legacy(document)
