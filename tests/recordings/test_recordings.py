"""Answers of real servers mean to us what they mean to their vendor, however they arrive.

The judge is an independent reader per wire (``readers/``), by the vendor's own SDK where it has
one. Bodies come from the recordings beside the checkout and, always, from ``own/``.
"""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import StreamBroken
from backends.types import CONTENT, Finish, HalfUsage
from policies.charging import Bounds, Delivered, Outcome, bill
from policies.pricing import Price, tariff
from tests.recordings import readers
from tests.recordings.cases import ABSENT, DECODERS, Case, answers, own, recorded
from tests.recordings.compare import KNOWN, Played, differences, play
from tests.recordings.cuts import every_offset, frames, inside_characters, pieces, sampled, ways

MISTRUSTED = {
    "databricks/structured--databricks-data-extraction": "a call's form is counted, and not sent",
    "lmstudio-responses/reasoning--lmstudio-basic-1": "more than its reasoning is counted, unseen",
    "google-gemini/text-stream--streaming-success-no-content-parts": "its image was taken out",
}
"""Reports that the rules of section 5 take for missing, though the server meant them."""


def parametrized() -> Any:
    """Give a test every answer in scope, and one skip that says so where only ours are there."""
    chosen = [pytest.param(case, id=case.name) for case in answers()]
    if not recorded():
        chosen.append(pytest.param(None, id="recordings", marks=pytest.mark.skip(ABSENT)))
    return pytest.mark.parametrize("case", chosen)


def whole(case: Case) -> Played:
    """Decode the body at once."""
    return play(case, [case.body])


@parametrized()
def test_an_answer_says_what_its_vendors_reader_reads(case: Case) -> None:
    """Text, reasoning and its signatures, refusals, calls, finish, usage, errors; lawfully."""
    whole(case)
    if any(case.name.startswith(name) for name in KNOWN):
        assert differences(case)
    else:
        assert differences(case) == []


@parametrized()
def test_where_an_answer_is_cut_into_reads_changes_nothing(case: Case) -> None:
    """At 64 offsets, inside every character, and at and around every frame's end."""
    unchanged(case, ways(case))


@pytest.mark.recordings_all
@parametrized()
def test_an_answer_may_be_cut_at_every_offset(case: Case) -> None:
    """Each offset in turn, and byte by byte."""
    unchanged(case, every_offset(case))


def unchanged(case: Case, cuts: Any) -> None:
    """Expect the same events and failure from any reads."""
    events, failure = whole(case)
    for places in cuts:
        again, failed = play(case, pieces(case.body, places))
        assert again == events, places[:5]
        assert type(failed) is type(failure), places[:5]
        assert str(failed) == str(failure), places[:5]


@parametrized()
def test_an_answer_that_breaks_off_never_looks_complete(case: Case) -> None:
    """Cut before the wire has said how it ends; what was said is a part of the whole."""
    events, _ = whole(case)
    said = [event for event in events if isinstance(event, CONTENT)]
    for offset in sampled(case, 12, below=first_end(case)):
        cut, failure = play(case, [case.body[:offset]])
        assert isinstance(failure, StreamBroken), offset
        assert not any(isinstance(event, Finish) for event in cut), offset
        heard = [event for event in cut if isinstance(event, CONTENT)]
        assert heard == said[: len(heard)], offset


LAST_EVENTS = {
    "messages": b'"message_stop"',
    "cohere": b'"message-end"',
    "ollama": b'"done":true',
}
"""What a wire always ends with: without it, a reason to stop is no end."""


def first_end(case: Case) -> int:
    """Return the offset before which no reader takes the answer for complete."""
    if not case.is_stream:
        return len(case.body.rstrip())
    if case.wire in LAST_EVENTS and case.kind != "stream-error":
        return case.body.rfind(LAST_EVENTS[case.wire])
    ends = [0, *frames(case)]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if _ended(case, ends[middle]):
            high = middle
        else:
            low = middle + 1
    return ends[low - 1] if low else 0


def _ended(case: Case, offset: int) -> bool:
    if not offset:
        return False
    body = case.body[:offset]
    if case.framing == "json-array":
        body += b"]"
    part = Case(case.name, case.wire, case.kind, case.framing, body)
    extract = readers.read(part)
    said = extract.choices.values()
    return extract.error is not None or any(choice.finish for choice in said)


@parametrized()
def test_a_report_is_believed(case: Case) -> None:
    """The rules that unmask a false report take true ones; where not, it is known and why."""
    events, failure = whole(case)
    if failure is not None or not isinstance(events[-1], Finish) or events[-1].usage is None:
        return
    usage, extras = events[-1].usage, events[-1].extras
    delivered = Delivered()
    delivered.add(events)
    if extras:
        delivered.came_with(extras)
    bounds = Bounds(
        hold_nanodollars=10**15,
        prompt_tokens=10**9,
        output_tokens=10**9,
        content_bytes=1000,
        copies=len(events[-1].choices),
    )
    price = tariff(Price(prompt=10**6, completion=10**6), 0)
    paid = bill(Outcome.FINISHED, usage, delivered, bounds, price)
    mistrusted = any(case.name.startswith(name) for name in MISTRUSTED)
    if isinstance(usage, HalfUsage):
        assert paid.flags[:2] == ("usage_half", "own_count")
    elif "own_count" in paid.flags:
        assert mistrusted, paid
    else:
        counts = (paid.usage.prompt_tokens, paid.usage.completion_tokens)
        assert counts == (usage.prompt_tokens, usage.completion_tokens)
        assert not mistrusted


def test_cuts_are_where_they_should_be() -> None:
    """A character of three bytes has two places inside; frames end where the next begins."""
    case = Case("x", "chat", "text-stream", "sse", "data: €\r\n\r\ndata: b\n\n".encode())
    assert inside_characters(case.body) == [7, 8]
    assert frames(case) == [13, 22]
    assert pieces(case.body, [0, 13, 99]) == [case.body[:13], case.body[13:]]
    assert {cut for cuts in every_offset(case, 5) for cut in cuts} == set(range(22))


def test_bodies_of_our_own_stand_in_for_every_wire() -> None:
    """A checkout without recordings still judges each codec."""
    assert {case.wire for case in own()} == set(DECODERS)
