"""A whole answer is its stream, collected: the two can never drift apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from backends.types import (
    AnnotationDelta,
    Delta,
    Finish,
    FinishReason,
    ImageDelta,
    MessageStart,
    PartStart,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
    VectorDelta,
)
from backends.wire.details import WORDS, merge_details


@dataclass(slots=True)
class ToolCall:
    """One tool call, put together."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    custom: bool = False


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
    refusal_logprobs: list[Any] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    vector: list[float] | str | None = None
    reason: FinishReason = "stop"
    raw_reason: str = ""
    events: Sequence[Delta] = field(default=(), compare=False)
    """The same in the order in which it came, for dialects that tell it in order: pieces that
    stood side by side are one, and an encoder says the same of them."""


@dataclass(slots=True)
class ChatAnswer:
    """All choices, by index."""

    choices: list[Choice]
    extras: dict[str, Any] | None = None


class Collector:
    """Takes events in order; ``answer`` is what they add up to."""

    def __init__(self) -> None:
        """Start empty."""
        self._runs: dict[int, list[_Run]] = {}
        self._finish: Finish | None = None

    def add(self, events: Iterable[StreamEvent]) -> None:
        """Take the next events."""
        for event in events:
            logprobs: Any = None
            match event:
                case TextDelta():  # nearly every event
                    kin, text, logprobs = TextDelta, event.text, event.logprobs
                case Finish():
                    self._finish = event
                    continue
                case ResponseStart() | UsageUpdate():
                    continue
                case _:
                    kin, text = _piece(event)
            runs = self._runs.get(event.index)
            if runs is None:
                runs = self._runs[event.index] = []
            if not runs or kin is None or runs[-1].kin != kin:
                runs.append(_Run(event, kin))
            run = runs[-1]
            run.pieces.append(text)
            if logprobs:
                run.tokens.extend(logprobs.get("content") or ())
                run.refused.extend(logprobs.get("refusal") or ())

    def answer(self) -> ChatAnswer:
        """Return everything taken so far."""
        choices = {index: _choice(index, runs) for index, runs in self._runs.items()}
        for end in self._finish.choices if self._finish else ():
            choice = choices.setdefault(end.index, Choice(end.index))
            choice.reason, choice.raw_reason = end.reason, end.raw_reason
        extras = self._finish.extras if self._finish else None
        return ChatAnswer([choices[index] for index in sorted(choices)], extras)


@dataclass(slots=True)
class _Run:
    """Deltas that stood side by side, of which no encoder says more than of their sum."""

    first: Delta
    kin: Any
    pieces: list[str] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)

    def sum(self) -> Delta:
        """Return one delta for all of them."""
        first, text = self.first, "".join(self.pieces)
        match first:
            case TextDelta():
                found = {"content": self.tokens, "refusal": self.refused}
                logprobs = {name: tokens for name, tokens in found.items() if tokens} or None
                return TextDelta(first.index, text, logprobs)
            case RefusalDelta():
                return RefusalDelta(first.index, text)
            case ToolCallDelta():
                return msgspec.structs.replace(first, arguments=text)
            case ReasoningDelta() if isinstance(self.kin, dict):
                words = WORDS[self.kin["type"]]
                return ReasoningDelta(first.index, text, [{**first.details[0], words: text}])
            case ReasoningDelta():
                return ReasoningDelta(first.index, text, first.details)
            case _:
                return first


def _piece(event: Delta) -> tuple[Any, str]:
    """Return what a delta shares with those that it adds up with (None: with none), and its text.

    Reasoning that is signed or encrypted stands alone, because it ends what is signed.
    """
    if isinstance(event, RefusalDelta):
        return RefusalDelta, event.text
    if isinstance(event, ToolCallDelta):
        says = event.arguments or event.name  # else it ends the call
        return event.call_index if says else None, event.arguments
    if not isinstance(event, ReasoningDelta):
        return None, ""
    text, details = event.text, event.details
    if not details:
        return ReasoningDelta, text
    detail = details[0] if isinstance(details, list) and len(details) == 1 else None
    if not isinstance(detail, dict) or detail.get("signature") or detail.get("data"):
        return None, text
    words = WORDS.get(str(detail.get("type")))
    if words is None or detail.get(words) != text or detail.get("index") is None:
        return None, text
    return {name: value for name, value in detail.items() if name != words}, text


def _beside_text(events: Iterable[Delta]) -> list[Delta]:
    """Return events with citations right after the text that came last, or else that comes first.

    Some upstreams tell them before any text, or after what follows it.
    """
    found: list[Delta] = []
    early: list[Delta] = []
    place: int | None = None
    for event in events:
        if isinstance(event, AnnotationDelta):
            if place is None:
                early.append(event)
            else:
                found.insert(place, event)
                place += 1
            continue
        found.append(event)
        if isinstance(event, TextDelta) and event.text:
            found += early
            early, place = [], len(found)
    return found + early


def _choice(index: int, runs: Iterable[_Run]) -> Choice:
    events = _beside_text(run.sum() for run in runs)
    choice = Choice(index, events=events)
    texts, thoughts, refusals = list[str](), list[str](), list[str]()
    calls: dict[int, tuple[ToolCall, list[str]]] = {}
    for event in events:
        match event:
            case TextDelta():
                texts.append(event.text)
                tokens = event.logprobs or {}
                choice.logprobs.extend(tokens.get("content", ()))
                choice.refusal_logprobs.extend(tokens.get("refusal", ()))
            case ReasoningDelta():
                thoughts.append(event.text)
                merge_details(choice.details, event.details or ())
            case RefusalDelta():
                refusals.append(event.text)
            case ToolCallDelta():
                named = ToolCall(event.id or "", event.name or "", custom=event.custom)
                calls.setdefault(event.call_index, (named, []))[1].append(event.arguments)
            case ImageDelta():
                choice.images.append(event.url)
            case AnnotationDelta():
                choice.annotations.extend(event.annotations)
            case VectorDelta():
                choice.vector = event.vector
            case MessageStart() | PartStart():
                pass  # of the order only
    choice.text, choice.reasoning, choice.refusal = map("".join, (texts, thoughts, refusals))
    for call, pieces in calls.values():
        call.arguments = "".join(pieces)
        choice.calls.append(call)
    return choice
