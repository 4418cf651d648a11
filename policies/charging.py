"""What is charged: section 5 of the design as one pure function.

Knows usage reports, what was delivered and the tariff; knows nothing of streams, Redis or
clients. Never more than the hold, never more than was delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from backends.types import (
    CONTENT,
    AnnotationDelta,
    Content,
    Cost,
    HalfUsage,
    ImageDelta,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Usage,
    UsageUpdate,
    VectorDelta,
    utf8_bytes,
)
from backends.types import ToolCallDelta as Call
from policies.pricing import PICO_PER_NANO, CostParts, Tariff, cost

BYTES_PER_TOKEN = 4
"""The estimate of last resort, rounded down so that it never charges too much."""

UNSEEN_TOKENS = 8
"""What an answer may count without bytes: the end of the sequence, marks of turns and channels."""

CALL_FORM_BYTES = 64
"""What a client gets around id, name and arguments of a call; models write a form of their own."""

REASONING_STEP_TOKENS = 64
"""OpenAI reports hidden reasoning in whole steps, rounded down: the rest is in the output."""


class Outcome(StrEnum):
    """How a request ended, as far as money is concerned."""

    FINISHED = "finished"
    CLIENT_CUT = "client_cut"
    BROKEN = "broken"
    """Cut by the upstream or by us after content."""
    FAILED = "failed"
    """No answer: nothing is charged."""


@dataclass(slots=True)
class Delivered:
    """What reached the client, counted as it goes: one per request, and it only grows."""

    visible_bytes: int = 0
    reasoning_bytes: int = 0
    form_bytes: int = 0
    """What came with the content: forms of calls, signatures, citations, a vendor's own. It makes
    a report of more tokens believable, and is never charged."""
    running: UsageUpdate | None = None
    bytes_at_running: int = 0
    """What had been delivered when the wire last said its count."""
    events: int = 0
    texts: list[str] | None = None
    """The content itself, for a count of tokens; None where nobody counts any."""

    def add(self, events: Sequence[StreamEvent]) -> None:
        """Count events that the client's socket has taken."""
        for event in events:
            if isinstance(event, TextDelta):
                self.events += 1
                text = event.text
                self.visible_bytes += len(text) if text.isascii() else utf8_bytes(text)
                if self.texts is not None:
                    self.texts.append(text)
            elif isinstance(event, UsageUpdate):
                self.running = event
                self.bytes_at_running = self.total_bytes
            elif isinstance(event, CONTENT):
                self.events += 1
                size = content_bytes(event)
                if self.texts is not None:
                    self.texts.append(_generated(event))
                if isinstance(event, ReasoningDelta):
                    self.reasoning_bytes += size
                    if event.details:
                        self.form_bytes += _sealed_bytes(event.details)
                else:
                    self.visible_bytes += size
                    if isinstance(event, Call) and event.name:
                        self.form_bytes += CALL_FORM_BYTES
            elif isinstance(event, AnnotationDelta):
                self.came_with(event.annotations)

    def came_with(self, document: Any) -> None:
        """Count what the client's socket has taken beside content."""
        self.form_bytes += len(msgspec.json.encode(document))

    def take_back(self, wire_bytes: int) -> None:
        """Leave out what was written and not taken: at most so much content was in it.

        The wire's running count was of more than was taken then; its prompt still holds.
        """
        if wire_bytes <= 0 or not self.events:
            return
        back = min(wire_bytes, self.visible_bytes)
        self.visible_bytes -= back
        self.reasoning_bytes -= min(wire_bytes - back, self.reasoning_bytes)
        if self.texts is not None:
            kept = "".join(self.texts).encode("utf-8", "surrogatepass")[:-wire_bytes]
            self.texts = [kept.decode("utf-8", "ignore")]
        if self.running is not None and self.bytes_at_running > self.total_bytes:
            self.running = UsageUpdate(self.running.prompt_tokens, 0)
            self.bytes_at_running = 0

    def counted(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Take a count of all that was delivered, as a wire's that has just come."""
        self.running = UsageUpdate(prompt_tokens, completion_tokens)
        self.bytes_at_running = self.total_bytes

    @property
    def total_bytes(self) -> int:
        """Everything the client got."""
        return self.visible_bytes + self.reasoning_bytes


class Bounds(msgspec.Struct, frozen=True):
    """What was held, and what the request lets an answer be."""

    hold_nanodollars: int
    prompt_tokens: int
    output_tokens: int
    """For all choices together."""

    content_bytes: int
    """What the prompt says, for a count of our own."""

    images: int = 0
    stop_bytes: int = 0
    """The longest stop text, for all choices: generated, counted, and never delivered."""

    copies: int = 1
    """How many answers were asked for: each has an end of its own."""


class Bill(msgspec.Struct, frozen=True):
    """The end of the sum: what the journal line, the record and the client's usage say."""

    usage: Usage
    cost: Cost
    cost_picodollars: int
    flags: tuple[str, ...] = ()


def bill(
    outcome: Outcome,
    report: Usage | HalfUsage | None,
    delivered: Delivered,
    bounds: Bounds,
    tariff: Tariff,
) -> Bill:
    """Return what a request that ended like this costs.

    Args:
        outcome: how it ended; ``FAILED`` costs nothing.
        report: the upstream's usage; read only for a finished answer.
        delivered: what reached the client (for a finished answer: the whole of it).
        bounds: what was held.
        tariff: the price and markup of the endpoint that answered.
    """
    if outcome is Outcome.FAILED:
        return Bill(Usage(0, 0), Cost(0), 0)
    own = own_count(delivered, bounds)
    if outcome is not Outcome.FINISHED:
        return _priced(own, ("cut", "own_count"), bounds, tariff)
    if report is None:
        return _priced(own, ("usage_missing", "own_count"), bounds, tariff)
    report, flags = _whole(report, own)
    if fault := _fault(report, delivered, bounds, tariff):
        return _priced(own, (f"usage_{fault}", "own_count"), bounds, tariff)
    if report.completion_tokens < own.completion_tokens:
        flags = (*flags, "usage_low")
    return _priced(report, flags, bounds, tariff)


def own_count(delivered: Delivered, bounds: Bounds) -> Usage:
    """Return our own count: the running usage if there is one, bytes / 4 from there, in bounds."""
    running = delivered.running
    if running is not None and running.prompt_tokens >= 0 and running.completion_tokens >= 0:
        prompt = running.prompt_tokens
        since = delivered.total_bytes - delivered.bytes_at_running
        completion = running.completion_tokens + since // BYTES_PER_TOKEN
        completion = min(completion, delivered.total_bytes)
    else:
        prompt = bounds.content_bytes // BYTES_PER_TOKEN
        completion = delivered.total_bytes // BYTES_PER_TOKEN
    return Usage(min(prompt, bounds.prompt_tokens), min(completion, bounds.output_tokens))


def content_bytes(event: Content) -> int:
    """Return the UTF-8 length of what an event shows the client."""
    if isinstance(event, Call):
        return sum(utf8_bytes(text) for text in (event.id, event.name, event.arguments) if text)
    if isinstance(event, ImageDelta):
        return len(event.url)
    return 0 if isinstance(event, VectorDelta) else utf8_bytes(event.text)


def _whole(report: Usage | HalfUsage, own: Usage) -> tuple[Usage, tuple[str, ...]]:
    """Return a report with both counts, whose parts are no more than the whole, and its flags."""
    if isinstance(report, HalfUsage):
        prompt, completion = report.prompt_tokens, report.completion_tokens
        whole = Usage(
            own.prompt_tokens if prompt is None else prompt,
            own.completion_tokens if completion is None else completion,
            # Parts of what the report does not count would make our own count dearer.
            None if prompt is None else report.cached_tokens,
            None if prompt is None else report.cache_write_tokens,
            None if completion is None else report.reasoning_tokens,
        )
        usage, flags = _whole(whole, own)
        return usage, ("usage_half", "own_count", *flags)
    cached, thought = report.cached_tokens, report.reasoning_tokens
    written = report.cache_write_tokens
    if (cached or 0) + (written or 0) <= report.prompt_tokens and (
        thought or 0
    ) <= report.completion_tokens:
        return report, ()
    cached = None if cached is None else min(cached, report.prompt_tokens)
    left = report.prompt_tokens - (cached or 0)
    cut = msgspec.structs.replace(
        report,
        cached_tokens=cached,
        cache_write_tokens=None if written is None else min(written, left),
        reasoning_tokens=None if thought is None else min(thought, report.completion_tokens),
    )
    return cut, ("usage_inconsistent",)


def _sealed_bytes(details: Any) -> int:
    """Return how long the signed and encrypted parts of reasoning are, its words apart."""
    return sum(
        len(value)
        for detail in details
        if isinstance(detail, dict)
        for value in (detail.get("signature"), detail.get("data"))
        if isinstance(value, str)
    )


def _generated(event: Content) -> str:
    """Return what of an event a model has written: ids of calls it has not."""
    if isinstance(event, Call):
        return f"{event.name or ''}{event.arguments}"
    return "" if isinstance(event, ImageDelta | VectorDelta) else event.text


def _fault(report: Usage, delivered: Delivered, bounds: Bounds, tariff: Tariff) -> str | None:
    """Say why a report cannot be believed, or None."""
    parts = (report.cached_tokens, report.cache_write_tokens, report.reasoning_tokens)
    thought = report.reasoning_tokens or 0
    counts = (report.prompt_tokens, report.completion_tokens, *(part or 0 for part in parts))
    if min(counts) < 0:
        return "negative"
    if report.prompt_tokens > bounds.prompt_tokens:
        return "above_hold"
    if report.completion_tokens > bounds.output_tokens:
        return "above_hold"
    price = cost(tariff.price, report, bounds.images)
    if tariff.charge_nanodollars(price.total_picodollars) > bounds.hold_nanodollars:
        return "above_hold"
    hidden = max(0, thought - delivered.reasoning_bytes)
    if hidden and not thought % REASONING_STEP_TOKENS:
        hidden += REASONING_STEP_TOKENS - 1
    most = delivered.total_bytes + delivered.form_bytes + bounds.stop_bytes
    most += UNSEEN_TOKENS * bounds.copies
    return "above_bytes" if report.completion_tokens - hidden > most else None


def _priced(usage: Usage, flags: tuple[str, ...], bounds: Bounds, tariff: Tariff) -> Bill:
    parts = cost(tariff.price, usage, bounds.images)
    charge = tariff.charge_nanodollars(parts.total_picodollars)
    if charge > bounds.hold_nanodollars:
        charge, flags = bounds.hold_nanodollars, (*flags, "capped")
    if usage.cost_picodollars is not None:
        parts = _scaled(parts, usage.cost_picodollars)
    return Bill(usage, _cost(charge, parts), parts.total_picodollars, flags)


def _scaled(parts: CostParts, total_picodollars: int) -> CostParts:
    """Return what the upstream says that it charged, split as its price would have been."""
    whole = parts.prompt_picodollars + parts.completion_picodollars
    prompt = total_picodollars * parts.prompt_picodollars // whole if whole else 0
    return CostParts(prompt, total_picodollars - prompt, 0)


def _cost(charge: int, parts: CostParts) -> Cost:
    return Cost(
        charge,
        _nano(parts.total_picodollars),
        _nano(parts.prompt_picodollars),
        _nano(parts.completion_picodollars),
    )


def _nano(picodollars: int) -> int:
    """Round to the nearest nano-dollar, for display; the exact figure is in the journal."""
    return (picodollars + PICO_PER_NANO // 2) // PICO_PER_NANO
