"""Text Generation Inference's own answers: bytes in, events out.

Source: TGI 3's OpenAPI description, ``StreamResponse`` and ``GenerateResponse`` (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from backends.errors import ProtocolError
from backends.types import StreamEvent, TextDelta
from backends.wire.decoder import AnswerDecoder
from backends.wire.failure import stream_error
from backends.wire.lenient import read
from backends.wire.values import report_of

_STOPPED: Final = "stop_sequence"


class _Token(msgspec.Struct, gc=False):
    text: str = ""
    special: bool = False


class _Details(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None
    prefill: list[Any] | None = None


class _Event(msgspec.Struct, gc=False):
    token: _Token | None = None
    generated_text: str | None = None
    summary_text: str | None = None
    translation_text: str | None = None
    """The last two of other pipelines of Hugging Face, which answer whole."""

    details: _Details | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class TGIDecoder(AnswerDecoder):
    """Turns the body of one answer, streamed or whole, into events.

    The server leaves a stop text in the answer; here it is held back and taken out.
    """

    wire = "TGI's"
    shapes = (_Event,)

    def __init__(self, stop: Sequence[str] = (), new_id: Callable[[], str] | None = None) -> None:
        """``stop`` are the stop texts that were sent."""
        super().__init__(new_id)
        self._stop = tuple(stop)
        self._held = ""

    def payload(self, payload: bytes, events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``."""
        event = _decode(payload)
        if event.error:
            raise stream_error(msgspec.json.decode(payload))
        if not self._started:
            self.begin(events)
        token = event.token
        if token is not None and not token.special and token.text:
            self._text(token.text, events)
        if event.generated_text is None and event.details is None:
            return
        special = token is not None and token.special
        self._end(event.details, "eos_token" if special else "length", events)

    def document(self, document: dict[str, Any], events: list[StreamEvent]) -> None:
        """See ``AnswerDecoder``; without details nobody knows why it ended."""
        answer = read(document, _Event)
        texts = (answer.generated_text, answer.summary_text, answer.translation_text)
        text = next((text for text in texts if text is not None), None)
        if text is None:
            raise ProtocolError(f"the upstream's answer is not of {self.wire} wire")
        self.begin(events)
        self._text(text, events)
        self._end(answer.details, "unknown", events)

    def _text(self, text: str, events: list[StreamEvent]) -> None:
        """Say what can be no part of a stop text."""
        if self._stop:
            text = self._held + text
            keep = max(_overlap(text, stop) for stop in self._stop)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if text:
            self.say(events, TextDelta(0, text))

    def _end(self, details: _Details | None, guess: str, events: list[StreamEvent]) -> None:
        details = details or _Details()
        ended = next((stop for stop in self._stop if self._held.endswith(stop)), "")
        reason = details.finish_reason or (_STOPPED if ended else guess)
        rest = self._held
        if reason == _STOPPED and ended:
            rest = rest[: len(rest) - len(ended)]
        self._held = ""
        if rest:
            self.say(events, TextDelta(0, rest))
        self.end_choice(events, 0, reason)
        prompt = details.input_length
        if prompt is None and details.prefill:
            prompt = len(details.prefill)
        self.report(report_of(prompt, details.generated_tokens), events)


def _overlap(text: str, stop: str) -> int:
    """Return how long the longest end of ``text`` is with which ``stop`` begins."""
    most = min(len(text), len(stop))
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
