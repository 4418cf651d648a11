"""A whole answer is its stream, collected: the two can never drift apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backends.types import (
    AnnotationDelta,
    FinishReason,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    VectorDelta,
)
from backends.types import Finish as FinishEvent
from backends.wire.details import merge_details


@dataclass(slots=True)
class ToolCall:
    """One tool call, put together."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Choice:
    """One choice of an answer, put together."""

    index: int
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    details: list[Any] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    vector: list[float] | str | None = None
    reason: FinishReason = "stop"
    raw_reason: str = ""


@dataclass(slots=True)
class ChatAnswer:
    """All choices, by index."""

    choices: list[Choice]
    extras: dict[str, Any] | None = None


class Collector:
    """Takes events in order; ``answer`` is what they add up to."""

    def __init__(self) -> None:
        """Start empty."""
        self._choices: dict[int, Choice] = {}
        self._extras: dict[str, Any] | None = None
        self._texts: dict[tuple[int, str], list[str]] = {}
        self._calls: dict[tuple[int, int], tuple[ToolCall, list[str]]] = {}

    def add(self, events: Iterable[StreamEvent]) -> None:
        """Take the next events."""
        for event in events:
            match event:
                case TextDelta():
                    self._text(event.index, "text", event.text)
                    if event.logprobs:
                        content = event.logprobs.get("content")
                        self._choice(event.index).logprobs.extend(content or ())
                case ReasoningDelta():
                    self._text(event.index, "reasoning", event.text)
                    merge_details(self._choice(event.index).details, event.details or ())
                case RefusalDelta():
                    self._text(event.index, "refusal", event.text)
                case ToolCallDelta():
                    self._call(event)
                case ImageDelta():
                    self._choice(event.index).images.append(event.url)
                case AnnotationDelta():
                    self._choice(event.index).annotations.extend(event.annotations)
                case VectorDelta():
                    self._choice(event.index).vector = event.vector
                case FinishEvent():
                    self._extras = event.extras
                    for end in event.choices:
                        choice = self._choice(end.index)
                        choice.reason, choice.raw_reason = end.reason, end.raw_reason
                case _:
                    pass

    def answer(self) -> ChatAnswer:
        """Return everything taken so far."""
        for (index, name), pieces in self._texts.items():
            setattr(self._choice(index), name, "".join(pieces))
        for call, pieces in self._calls.values():
            call.arguments = "".join(pieces)
        choices = [self._choices[index] for index in sorted(self._choices)]
        return ChatAnswer(choices, self._extras)

    def _choice(self, index: int) -> Choice:
        if index not in self._choices:
            self._choices[index] = Choice(index)
        return self._choices[index]

    def _text(self, index: int, name: str, piece: str) -> None:
        pieces = self._texts.get((index, name))
        if pieces is None:
            self._choice(index)
            pieces = self._texts[index, name] = []
        pieces.append(piece)

    def _call(self, event: ToolCallDelta) -> None:
        key = (event.index, event.call_index)
        if key not in self._calls:
            call = ToolCall()
            self._calls[key] = (call, [])
            self._choice(event.index).calls.append(call)
        call, pieces = self._calls[key]
        call.id = call.id or event.id or ""
        call.name = call.name or event.name or ""
        pieces.append(event.arguments)
