"""What holds for every decoder and any bytes: the laws that fuzzing looks for breaks of."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping

from backends.errors import BackendError
from backends.types import CONTENT, ChoiceEnd, Finish, ResponseStart, StreamEvent, ToolCallDelta
from backends.wire.decoder import AnswerDecoder
from tests.fuzz.decoders import DECODERS
from tests.matrix.wires import WIRES, Wire

_ENDS = re.compile(
    rb'"finish_reason": "|"finishReason": "|"stop_reason": "|messageStop|response\.completed'
    rb'|"done": true|"generated_text": "'
)


def play(decoder: AnswerDecoder, reads: Iterable[bytes]) -> list[StreamEvent]:
    """Decode a body that arrives in these reads and then ends."""
    events: list[StreamEvent] = []
    for read in reads:
        events += decoder.feed(read)
        if decoder.done or decoder.failure is not None:
            return events
    return events + decoder.end()


def check(decoder: AnswerDecoder, events: list[StreamEvent]) -> None:
    """Check a decoded answer against the laws of a stream.

    Raises:
        AssertionError: a law does not hold.
    """
    finishes = [event for event in events if isinstance(event, Finish)]
    if decoder.failure is not None:
        assert isinstance(decoder.failure, BackendError)
        assert finishes == [], "an answer that failed has no finish"
    else:
        assert decoder.done, "a body that ended has ended well or badly"
        assert finishes == events[-1:], "one finish, and it is the last"
        [finish] = finishes
        ended = [end.index for end in finish.choices]
        assert len(set(ended)) == len(ended) > 0
        assert all(isinstance(end, ChoiceEnd) and end.reason for end in finish.choices)
        spoke = {event.index for event in events if isinstance(event, CONTENT)}
        assert spoke <= set(ended), "whoever spoke has ended"
    starts = [event for event in events if isinstance(event, ResponseStart)]
    assert len(starts) <= 1
    assert starts == [e for e in events[:1] if isinstance(e, ResponseStart)], "it starts first"
    _check_calls(events, complete=decoder.failure is None)


def _check_calls(events: list[StreamEvent], *, complete: bool) -> None:
    calls: dict[tuple[int, int], str] = {}
    custom: set[tuple[int, int]] = set()
    names: list[str] = []
    for event in events:
        if not isinstance(event, ToolCallDelta):
            continue
        place = (event.index, event.call_index)
        if place not in calls:
            assert event.id, "a call begins with its id"
            assert event.name, "and its name"
            names.append(event.id)
            custom |= {place} if event.custom else set()
            calls[place] = event.arguments
        else:
            assert (event.id, event.name) == (None, None)
            calls[place] += event.arguments
        assert event.custom is (place in custom), "of one kind from first to last"
    assert len(set(names)) == len(names), "no id twice"
    if complete:
        given = (text for place, text in calls.items() if place not in custom)
        assert all(text.strip() for text in given), "no call without arguments"


def decoders() -> Mapping[str, Callable[[], AnswerDecoder]]:
    """Return a maker of fresh decoders for each wire."""
    return DECODERS


def bodies() -> list[tuple[Wire, str, list[bytes]]]:
    """Return every scripted answer: its wire, its scenario, its pieces."""
    return [(wire, name, pieces) for wire in WIRES for name, pieces in wire.bodies.items()]


def before_the_end(pieces: list[bytes]) -> bytes:
    """Return the part of a body that comes before any word of its end."""
    kept = []
    for piece in pieces:
        found = _ENDS.search(piece) or _ENDS.search(_inner(piece))
        if found is not None:
            break
        kept.append(piece)
    return b"".join(kept)


def _inner(piece: bytes) -> bytes:
    """Return what lies in base64 within a frame; nothing if there is none."""
    found = re.search(rb'\{"bytes": "([^"]+)"', piece)
    return base64.b64decode(json.loads(b'"' + found[1] + b'"')) if found else b""
