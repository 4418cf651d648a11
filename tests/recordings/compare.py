"""What our decoder made of an answer, against what an independent reader says of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, get_args

from backends.collect import Choice, Collector
from backends.errors import (
    BackendError,
    ContentFiltered,
    ContextLengthExceeded,
    ProtocolError,
    RateLimited,
    RequestRejected,
    StreamTruncated,
    UpstreamFailed,
)
from backends.types import (
    CONTENT,
    Finish,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.recordings import readers
from tests.recordings.cases import Case, decoder
from tests.recordings.extract import Extract, Said, Tokens, parsed

Played = tuple[list[StreamEvent], BackendError | None]

KNOWN: dict[str, str] = {}
"""Cases that may differ from their reader, by the start of the name, and why that is right."""

STREAM_ERRORS: dict[str, type[BackendError]] = {
    "anthropic-messages/stream-error--function": UpstreamFailed,  # overloaded: HTTP 529
    "groq/stream-error--": RequestRejected,  # status_code 400
    "openai-responses/stream-error--": RateLimited,  # insufficient_quota: HTTP 429
    "openrouter/stream-error--": RequestRejected,  # code 400
    "tgi-native/stream-error--": ContextLengthExceeded,  # tokens over the window: HTTP 422
    "vertex-gemini/content-filter-stream--": ContentFiltered,  # the prompt was blocked
    "vertex-gemini/stream-error--": UpstreamFailed,  # CANCELLED: HTTP 499
}
"""What each error in a stream would have been as an HTTP answer, from the vendors' documents."""


def play(case: Case, reads: Iterable[bytes]) -> Played:
    """Decode a body that arrives in these reads."""
    ours = decoder(case)
    events: list[StreamEvent] = []
    for read in reads:
        events += ours.feed(read)
        if ours.done or ours.failure:
            return events, ours.failure
    events += ours.end()
    return events, ours.failure


def differences(case: Case) -> list[str]:
    """Return everything that is not as the reader says; empty where all is right."""
    expected = readers.read(case)
    events, failure = play(case, [case.body])
    found = [*laws(events, failure), *_ending(case, expected, events, failure)]
    collector = Collector()
    collector.add(events)
    ours = {choice.index: choice for choice in collector.answer().choices}
    for index, said in expected.choices.items():
        choice = ours.get(index, Choice(index))
        found += [f"choice {index}: {what}" for what in choice_differences(said, choice)]
    silent = {index for index in ours if index not in expected.choices}
    if silent:
        found.append(f"choices that nobody sent: {silent}")
    return found


def _ending(
    case: Case, expected: Extract, events: list[StreamEvent], failure: BackendError | None
) -> Iterable[str]:
    if expected.error is not None:
        yield from _failed(case, expected.error, failure)
        return
    if not expected.complete:
        if not isinstance(failure, StreamTruncated):
            yield f"no finish reason, yet not truncated: {failure!r}"
        return
    if failure is not None or not events or not isinstance(events[-1], Finish):
        yield f"failed: {failure!r}"
        return
    finish = events[-1]
    ends = {end.index: end for end in finish.choices}
    for index, said in expected.choices.items():
        end = ends.get(index)
        if end is None:
            yield f"choice {index} has no end"
            continue
        if said.finish and end.reason != said.finish:
            yield f"choice {index} ends as {end.reason}, expected {said.finish} ({said.raw})"
        if said.raw and end.raw_reason != said.raw:
            yield f"choice {index} keeps {end.raw_reason!r} as the wire's word, not {said.raw!r}"
    if finish.dropped_events:
        yield f"{finish.dropped_events} events were dropped"
    usage = finish.usage
    counted = usage and Tokens(usage.prompt_tokens, usage.completion_tokens)
    if counted and isinstance(usage, Usage):
        counted.cached, counted.cache_write = usage.cached_tokens, usage.cache_write_tokens
        counted.reasoning = usage.reasoning_tokens
    if counted != expected.usage:
        yield f"usage is {counted}, expected {expected.usage}"


def _failed(case: Case, message: str, failure: BackendError | None) -> Iterable[str]:
    if failure is None or isinstance(failure, StreamTruncated | ProtocolError):
        yield f"the error was not seen: {failure!r}"
        return
    if message not in failure.message:
        yield f"the error says {failure.message!r}, expected {message!r}"
    kinds = [kind for name, kind in STREAM_ERRORS.items() if case.name.startswith(name)]
    if kinds and not isinstance(failure, kinds[0]):
        yield f"the error is {type(failure).__name__}, expected {kinds[0].__name__}"


def choice_differences(said: Said, choice: Choice) -> Iterable[str]:
    """Yield what a choice says that the reader does not."""
    if said.document is not None:
        if parsed(choice.text) != said.document:
            yield f"text is {_short(choice.text)}, expected {said.document}"
    elif choice.text != said.text:
        yield f"text is {_short(choice.text)}, expected {_short(said.text)}"
    if _dense(choice.reasoning) != _dense("".join(said.reasoning)):
        joined = "".join(said.reasoning)
        yield f"reasoning is {_short(choice.reasoning)}, expected {_short(joined)}"
    if choice.refusal != said.refusal:
        yield f"refusal is {_short(choice.refusal)}, expected {_short(said.refusal)}"
    calls = [
        (call.name, call.arguments if call.custom else parsed(call.arguments))
        for call in choice.calls
    ]
    if calls != said.calls:
        yield f"calls are {calls}, expected {said.calls}"
    kept = json.dumps(choice.details)
    lost = [
        signs
        for signs in said.signatures
        if not any(json.dumps(sign)[1:-1] in kept for sign in signs)
    ]
    if lost:
        yield f"{len(lost)} of {len(said.signatures)} signatures are lost: {lost[0][0][:40]}..."
    if said.images != len(choice.images):
        yield f"{len(choice.images)} images, expected {said.images}"


def _dense(text: str) -> str:
    """How parts of reasoning are joined is nobody's promise."""
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) < 160 else f"{text[:70]}...{text[-70:]} ({len(text)})")


def laws(events: list[StreamEvent], failure: BackendError | None) -> Iterable[str]:
    """Yield what is against the laws of a stream of events."""
    starts = [place for place, event in enumerate(events) if isinstance(event, ResponseStart)]
    if starts != [0] and (events or failure is None):
        yield f"starts at {starts}"
    finishes = [place for place, event in enumerate(events) if isinstance(event, Finish)]
    if finishes != ([] if failure else [len(events) - 1]):
        yield f"finishes at {finishes} of {len(events)}, with {failure!r}"
    for event in events:
        empty = (
            (isinstance(event, TextDelta) and not event.text and not event.logprobs)
            or (isinstance(event, ReasoningDelta) and not event.text and not event.details)
            or (isinstance(event, RefusalDelta) and not event.text)
        )
        if empty:
            yield f"says nothing: {event}"
    if events and isinstance(events[-1], Finish):
        yield from _ends(events, events[-1])
    ends = events[-1].choices if events and isinstance(events[-1], Finish) else ()
    cut = {end.index for end in ends if end.reason in ("length", "content_filter")}
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    yield from _calls(calls, failure, cut)


def _ends(events: list[StreamEvent], finish: Finish) -> Iterable[str]:
    spoke = {event.index for event in events if isinstance(event, CONTENT)}
    ended = [end.index for end in finish.choices]
    if len(set(ended)) != len(ended) or not spoke <= set(ended):
        yield f"choices {spoke} spoke, {ended} ended"
    for end in finish.choices:
        if end.reason not in get_args(FinishReason) or not isinstance(end.raw_reason, str):
            yield f"no reason: {end}"


def _calls(
    pieces: list[ToolCallDelta], failure: BackendError | None, cut: set[int]
) -> Iterable[str]:
    whole: dict[tuple[int, int], list[ToolCallDelta]] = {}
    for piece in pieces:
        whole.setdefault((piece.index, piece.call_index), []).append(piece)
    for place, (first, *rest) in whole.items():
        if not first.id or not first.name:
            yield f"call {place} begins without id or name: {first}"
        if any(piece.id or piece.name for piece in rest):
            yield f"call {place} says its id or name again"
        arguments: Any = parsed("".join(piece.arguments for piece in (first, *rest)))
        empty = not any(piece.arguments for piece in (first, *rest))
        if first.custom:
            complete = failure is None and place[0] not in cut
            if complete and rest[-1:] != [ToolCallDelta(*place, None, None, "", True)]:
                yield f"call {place} of a custom tool has no end: {first.name}"
        elif failure is None and (empty or not isinstance(arguments, dict)):
            yield f"call {place} ends with no JSON object: {first.name}"
    for index, group in itertools.groupby(sorted(whole), key=lambda place: place[0]):
        places = list(group)
        ids = {whole[place][0].id for place in places}
        if len(ids) != len(places):
            yield f"choice {index}: call ids are not unique"
        if [place[1] for place in places] != list(range(len(places))):
            yield f"choice {index}: calls are numbered {[place[1] for place in places]}"
