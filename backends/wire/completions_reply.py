"""OpenAI's legacy Completions answers, as our clients get them: events in, bytes out.

``text_completion`` objects with OpenRouter's additions (``provider``, ``native_finish_reason``,
``usage`` with ``cost``); a stream ends as chat's does, with one closing chunk and ``[DONE]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backends.collect import ChatAnswer, Choice
from backends.types import (
    AnswerHead,
    ChatRequest,
    Cost,
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
)
from backends.wire.legacy_logprobs import to_legacy
from backends.wire.openai_reply import DONE, usage_body

_encode = msgspec.json.Encoder().encode
_PLAIN_END = b',"logprobs":null,"finish_reason":null,"native_finish_reason":null}]}\n\n'


class CompletionsEncoder:
    """Writes one answer as server-sent events."""

    __slots__ = ("_chars", "_head", "_prefix", "_text")

    def __init__(self, head: AnswerHead, request: ChatRequest) -> None:
        """Prepare what every chunk repeats."""
        del request  # an answer of this dialect repeats nothing of it
        self._head = _head_fields(head)
        self._prefix = b"data: " + _encode(self._head)[:-1] + b',"choices":['
        self._text = self._prefix + b'{"index":0,"text":'
        self._chars: dict[int, int] = {}
        """Characters sent of each choice that has log probabilities."""

    def open(self) -> bytes:
        """Nothing precedes the first chunk."""
        return b""

    def delta(self, event: Delta) -> bytes:
        """Return the chunk of one content event; nothing of what this dialect cannot say."""
        if isinstance(event, TextDelta):
            if not event.index and event.logprobs is None:  # nearly every event of a stream
                return b"".join((self._text, _encode(event.text), _PLAIN_END))
            return self._chunk(
                choices=[_piece(event.index, event.text, logprobs=self._logprobs(event))]
            )
        if isinstance(event, RefusalDelta):
            return self._chunk(choices=[_piece(event.index, event.text)])
        if isinstance(event, ReasoningDelta) and event.text:
            return self._chunk(choices=[{**_piece(event.index, ""), "reasoning": event.text}])
        return b""

    def finish(self, finish: Finish, usage: Usage, cost: Cost) -> bytes:
        """Return the closing chunk and the stream's end marker."""
        choices = [_piece(end.index, "", end.reason, end.raw_reason) for end in finish.choices]
        rest: dict[str, Any] = {"choices": choices, "usage": usage_body(usage, cost)}
        if finish.extras:
            rest["provider_extras"] = {self._head["provider"]: finish.extras}
        return self._chunk(**rest) + DONE

    def error(self, error: Mapping[str, Any], usage: Usage | None, cost: Cost | None) -> bytes:
        """Return the chunk that ends a stream which failed. No end marker follows it."""
        rest: dict[str, Any] = {"error": error, "choices": [_piece(0, "", "error")]}
        if usage is not None and cost is not None:
            rest["usage"] = usage_body(usage, cost)
        return self._chunk(**rest)

    def waiting(self) -> tuple[Delta, ...]:
        """Nothing waits: every event is written at once."""
        return ()

    def _logprobs(self, event: TextDelta) -> dict[str, Any] | None:
        before = self._chars.get(event.index, 0)
        self._chars[event.index] = before + len(event.text)
        content = event.logprobs.get("content") if event.logprobs else None
        return to_legacy(content, before) if content else None

    def _chunk(self, **rest: Any) -> bytes:
        return b"data: " + _encode({**self._head, **rest}) + b"\n\n"


def encode_answer(
    head: AnswerHead, request: ChatRequest, answer: ChatAnswer, usage: Usage, cost: Cost
) -> bytes:
    """Return the body of a whole answer."""
    del request
    body = _head_fields(head)
    body["choices"] = [_whole(choice) for choice in answer.choices]
    body["usage"] = usage_body(usage, cost)
    if answer.extras:
        body["provider_extras"] = {head.provider: answer.extras}
    return _encode(body)


def _whole(choice: Choice) -> dict[str, Any]:
    logprobs = to_legacy(choice.logprobs, 0) if choice.logprobs else None
    text = choice.text + choice.refusal
    body = _piece(choice.index, text, choice.reason, choice.raw_reason, logprobs)
    return body | {"reasoning": choice.reasoning} if choice.reasoning else body


def _piece(
    index: int,
    text: str,
    reason: str | None = None,
    raw_reason: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": reason,
        "native_finish_reason": raw_reason,
    }


def _head_fields(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created_s,
        "model": head.model,
        "provider": head.provider,
    }
