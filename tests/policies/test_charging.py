"""What is charged: each sentence of the design's section 5 that is decided without I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.types import (
    AnnotationDelta,
    Delta,
    HalfUsage,
    ReasoningDelta,
    RefusalDelta,
    ResponseStart,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from policies.charging import Bill, Bounds, Delivered, Outcome, bill, content_bytes, own_count
from policies.pricing import Price, tariff
from tests.contracts.policy_contract import tariffs

PROMPT, COMPLETION = 3_000, 7_000
TARIFF = tariff(Price(PROMPT, COMPLETION), 0)
BOUNDS = Bounds(
    hold_nanodollars=10**9, prompt_tokens=1000, output_tokens=500, content_bytes=400, stop_bytes=0
)
SAID = Delivered(visible_bytes=200)
"""Fifty tokens by our own count, beside a prompt of a hundred."""


def charged(prompt: int, completion: int) -> int:
    """Return the charge for so many tokens at the usual tariff, in nano-dollars."""
    return prompt * PROMPT // 1000 + completion * COMPLETION // 1000


def finished(report: Usage | None, delivered: Delivered = SAID, **bounds: Any) -> Bill:
    """Return the bill of a finished answer."""
    return bill(Outcome.FINISHED, report, delivered, replace(BOUNDS, **bounds), TARIFF)


def test_a_finished_answer_costs_its_reported_usage() -> None:
    """Not our own count: the upstream has counted."""
    paid = finished(Usage(90, 70))
    assert paid.usage == Usage(90, 70)
    assert paid.cost.charge_nanodollars == charged(90, 70)
    assert paid.flags == ()


def test_a_finished_answer_without_content_costs_its_report_too() -> None:
    """A text that the caller's `stop` emptied, or a filter: the stop text was generated."""
    paid = finished(Usage(90, 4), Delivered(), stop_bytes=3)
    assert (paid.cost.charge_nanodollars, paid.flags) == (charged(90, 4), ())


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_CUT, Outcome.BROKEN])
def test_a_cut_answer_costs_the_prompt_and_what_was_delivered(outcome: Outcome) -> None:
    """By our own count, flagged; a report that came too late is not read."""
    paid = bill(outcome, Usage(1000, 500), SAID, BOUNDS, TARIFF)
    assert paid.usage == Usage(100, 50)
    assert paid.cost.charge_nanodollars == charged(100, 50)
    assert paid.flags == ("cut", "own_count")


def test_a_cut_before_any_content_costs_the_prompt() -> None:
    """The endpoint had accepted it."""
    paid = bill(Outcome.CLIENT_CUT, None, Delivered(), BOUNDS, TARIFF)
    assert paid.usage == Usage(100, 0)
    assert paid.cost.charge_nanodollars == charged(100, 0)


def test_a_failed_answer_costs_nothing() -> None:
    """Whatever was reported and whatever had been delivered; fees included."""
    dear = tariff(Price(1, 1, request=10**9, image=10**9), 5000)
    paid = bill(Outcome.FAILED, Usage(1000, 500), SAID, replace(BOUNDS, images=2), dear)
    assert (paid.cost.charge_nanodollars, paid.cost_picodollars) == (0, 0)
    assert paid.usage == Usage(0, 0)


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (Usage(-1, 70), "negative"),
        (Usage(90, -1), "negative"),
        (Usage(90, 70, cached_tokens=-1), "negative"),
        (Usage(90, 70, cache_write_tokens=-1), "negative"),
        (Usage(90, 70, reasoning_tokens=-1), "negative"),
        (Usage(1001, 70), "above_hold"),
        (Usage(90, 501), "above_hold"),
        (Usage(90, 209), "above_bytes"),
        (Usage(90, 300, reasoning_tokens=90), "above_bytes"),
    ],
)
def test_a_report_that_cannot_be_true_counts_as_missing(report: Usage, fault: str) -> None:
    """Own count, flagged with the reason; never a refund of everything."""
    paid = finished(report)
    assert paid.usage == Usage(100, 50)
    assert paid.cost.charge_nanodollars == charged(100, 50)
    assert paid.flags == (f"usage_{fault}", "own_count")


@pytest.mark.parametrize(
    ("report", "taken"),
    [
        (Usage(90, 70, cached_tokens=91), Usage(90, 70, cached_tokens=90)),
        (
            Usage(90, 70, cached_tokens=60, cache_write_tokens=60),
            Usage(90, 70, cached_tokens=60, cache_write_tokens=30),
        ),
        (Usage(90, 70, reasoning_tokens=71), Usage(90, 70, reasoning_tokens=70)),
    ],
)
def test_parts_that_are_more_than_the_whole_are_the_whole(report: Usage, taken: Usage) -> None:
    """The two counts stand, as the vendor's own total says; what is odd is flagged."""
    paid = finished(report)
    assert (paid.usage, paid.flags) == (taken, ("usage_inconsistent",))
    assert paid.cost.charge_nanodollars == charged(90, 70)


@pytest.mark.parametrize(
    ("report", "counted"),
    [
        (HalfUsage(90, None), Usage(90, 50)),
        (HalfUsage(None, 70), Usage(100, 70)),
        (HalfUsage(90, None, cached_tokens=80), Usage(90, 50, cached_tokens=80)),
        (HalfUsage(None, 300, reasoning_tokens=290), Usage(100, 300, reasoning_tokens=290)),
        (HalfUsage(90, None, reasoning_tokens=50), Usage(90, 50)),
        (HalfUsage(None, 70, cached_tokens=9, cache_write_tokens=9), Usage(100, 70)),
    ],
)
def test_half_a_report_is_taken_and_the_rest_counted(report: HalfUsage, counted: Usage) -> None:
    """Some servers count no prompt that they have cached; never 0 for what nobody counted."""
    paid = finished(report)
    assert (paid.usage, paid.flags) == (counted, ("usage_half", "own_count"))


def test_half_a_report_is_checked_as_a_whole_one_is() -> None:
    """Each count against what was held and delivered."""
    for report, fault in [
        (HalfUsage(1001, None), "above_hold"),
        (HalfUsage(None, 209), "above_bytes"),
        (HalfUsage(None, -1), "negative"),
    ]:
        paid = finished(report)
        assert (paid.usage, paid.flags) == (Usage(100, 50), (f"usage_{fault}", "own_count"))


def test_a_missing_report_is_our_own_count() -> None:
    """Flagged, and never nothing."""
    paid = finished(None)
    assert (paid.usage, paid.flags) == (Usage(100, 50), ("usage_missing", "own_count"))


def test_a_report_whose_price_is_above_the_hold_counts_as_missing() -> None:
    """Also where each count alone is within its bound."""
    paid = finished(Usage(1000, 200), hold_nanodollars=charged(1000, 200) - 1)
    assert paid.flags == ("usage_above_hold", "own_count")
    assert finished(Usage(1000, 200), hold_nanodollars=charged(1000, 200)).flags == ()


@pytest.mark.parametrize(
    ("completion", "bounds", "believed"),
    [
        (208, {}, True),
        (209, {}, False),
        (212, {"stop_bytes": 4}, True),
        (213, {"stop_bytes": 4}, False),
        (232, {"copies": 4}, True),
        (233, {"copies": 4}, False),
    ],
)
def test_a_token_has_at_least_one_byte(
    completion: int, bounds: dict[str, int], believed: bool
) -> None:
    """But for the marks around each answer, which have none, and the stop text."""
    assert (finished(Usage(90, completion), **bounds).flags == ()) is believed


def test_what_comes_with_content_makes_more_tokens_believable() -> None:
    """Two short calls: their form, and signatures, citations and a vendor's own beside."""
    said = Delivered()
    said.add(
        [
            ToolCallDelta(0, 0, "a", "f", ""),
            ToolCallDelta(0, 0, None, None, "{}"),
            ToolCallDelta(0, 1, "b", "g", "{}"),
        ]
    )
    assert (said.total_bytes, said.form_bytes) == (8, 2 * 64)
    assert finished(Usage(90, 8 + 2 * 64 + 8), said).flags == ()
    assert finished(Usage(90, 8 + 2 * 64 + 9), said).flags == ("usage_above_bytes", "own_count")
    said.add([ReasoningDelta(0, "", [{"text": "said once", "signature": "x" * 40}])])
    said.add([AnnotationDelta(0, [{"url": "https://a.example"}])])
    said.came_with({"search_results": ["y" * 20]})
    more = said.form_bytes - 2 * 64
    assert more == len('[{"url":"https://a.example"}]{"search_results":[""]}') + 60
    assert finished(Usage(90, 8 + 2 * 64 + more + 8), said).flags == ()
    assert own_count(said, BOUNDS) == Usage(100, 2)


def test_the_rest_of_a_step_of_hidden_reasoning_is_output() -> None:
    """OpenAI reports it in steps of 64 tokens: seven tokens of text can be 84 beside 64."""
    said = Delivered(visible_bytes=5)
    assert finished(Usage(90, 64 + 63 + 5 + 8, reasoning_tokens=64), said).flags == ()
    above = Usage(90, 64 + 63 + 5 + 9, reasoning_tokens=64)
    assert finished(above, said).flags == ("usage_above_bytes", "own_count")
    uneven = Usage(90, 65 + 5 + 9, reasoning_tokens=65)
    assert finished(uneven, said).flags == ("usage_above_bytes", "own_count")


def test_hidden_reasoning_has_no_bytes_to_compare_with() -> None:
    """It is billed as reported, within the hold."""
    hidden = Usage(90, 400, reasoning_tokens=350)
    assert finished(hidden).flags == ()
    partly = Delivered(visible_bytes=50, reasoning_bytes=10)
    assert finished(hidden, partly).flags == ()
    shown = Delivered(visible_bytes=20, reasoning_bytes=360)
    assert finished(hidden, shown).flags == ("usage_above_bytes", "own_count")


@pytest.mark.parametrize(("completion", "flags"), [(49, ("usage_low",)), (50, ())])
def test_a_report_below_our_own_count_is_taken_and_flagged(
    completion: int, flags: tuple[str, ...]
) -> None:
    """The caller pays what was reported; the operator sees that something is odd."""
    paid = finished(Usage(90, completion))
    assert (paid.usage, paid.flags) == (Usage(90, completion), flags)


def test_our_own_count_is_the_running_usage_where_there_is_one() -> None:
    """Exact, but never above what was delivered, asked for, or held."""
    said = Delivered(visible_bytes=200, running=UsageUpdate(80, 60), bytes_at_running=200)
    assert own_count(said, BOUNDS) == Usage(80, 60)
    for running, counted in [
        (UsageUpdate(80, 300), Usage(80, 200)),
        (UsageUpdate(8000, 60), Usage(1000, 60)),
        (UsageUpdate(-1, 60), Usage(100, 50)),
        (UsageUpdate(80, -1), Usage(100, 50)),
    ]:
        assert own_count(dataclasses.replace(said, running=running), BOUNDS) == counted
    assert own_count(said, replace(BOUNDS, output_tokens=40)) == Usage(80, 40)


def test_running_usage_of_a_cut_answer_is_flagged_as_ours() -> None:
    """Own count is always flagged."""
    said = Delivered(visible_bytes=200, running=UsageUpdate(80, 60), bytes_at_running=200)
    paid = bill(Outcome.CLIENT_CUT, None, said, BOUNDS, TARIFF)
    assert (paid.usage, paid.flags) == (Usage(80, 60), ("cut", "own_count"))


def test_our_own_count_rounds_down() -> None:
    """Four bytes a token: three bytes are none."""
    counts = [own_count(Delivered(visible_bytes=n), BOUNDS).completion_tokens for n in range(9)]
    assert counts == [0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_reasoning_that_was_shown_was_delivered() -> None:
    """It counts like text."""
    said = Delivered(visible_bytes=100, reasoning_bytes=100)
    assert own_count(said, BOUNDS) == Usage(100, 50)


@pytest.mark.parametrize(
    ("event", "size"),
    [
        (TextDelta(0, "abc"), 3),
        (TextDelta(0, "ü🌍"), 6),
        (TextDelta(0, "\ud800"), 3),
        (ReasoningDelta(0, "hm"), 2),
        (ReasoningDelta(0, "", [{"data": "long and encrypted"}]), 0),
        (RefusalDelta(0, "no"), 2),
        (ToolCallDelta(0, 0, "call_1", "time", '{"a":1}'), 17),
        (ToolCallDelta(0, 0, None, None, ""), 0),
    ],
)
def test_content_is_counted_in_utf8_bytes(event: Delta, size: int) -> None:
    """Text, reasoning, refusals, names and arguments of calls; not ids and not frames."""
    assert content_bytes(event) == size


def test_delivered_counts_content_only_and_keeps_the_last_running_count() -> None:
    """A start and counts are no content."""
    said = Delivered()
    said.add([ResponseStart(), UsageUpdate(9, 0), TextDelta(0, "ab"), UsageUpdate(9, 1)])
    said.add([ReasoningDelta(0, "abc"), RefusalDelta(1, "x")])
    assert (said.visible_bytes, said.reasoning_bytes, said.events) == (3, 3, 3)
    assert said.total_bytes == 6
    assert said.running == UsageUpdate(9, 1)


_counts = st.integers(-5, 2000)
_reports = (
    st.none()
    | st.builds(HalfUsage, *[st.none() | _counts] * 5)
    | st.builds(
        Usage, _counts, _counts, st.none() | _counts, st.none() | _counts, st.none() | _counts
    )
)
_running = st.none() | st.builds(UsageUpdate, _counts, _counts)
_said = st.builds(
    Delivered, st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 300), _running
)
_bounds = st.builds(
    Bounds,
    hold_nanodollars=st.integers(0, 10**9),
    prompt_tokens=st.integers(0, 1000),
    output_tokens=st.integers(0, 1000),
    content_bytes=st.integers(0, 4000),
    images=st.integers(0, 2),
    stop_bytes=st.integers(0, 10),
    copies=st.integers(1, 4),
)


@given(st.sampled_from(list(Outcome)), _reports, _said, _bounds, tariffs)
def test_no_bill_is_above_the_hold_or_below_zero(
    outcome: Outcome, report: Usage | HalfUsage | None, said: Delivered, bounds: Bounds, rates
) -> None:
    """Whatever is reported, delivered and held; and its parts are whole."""
    paid = bill(outcome, report, said, bounds, rates)
    assert 0 <= paid.cost.charge_nanodollars <= bounds.hold_nanodollars
    assert paid.cost_picodollars >= 0
    assert min(paid.usage.prompt_tokens, paid.usage.completion_tokens) >= 0
    parts = paid.cost.upstream_prompt_nanodollars + paid.cost.upstream_completion_nanodollars
    assert parts <= paid.cost.upstream_nanodollars + 1
    exact = rates.charge_nanodollars(paid.cost_picodollars)
    assert paid.cost.charge_nanodollars == min(exact, bounds.hold_nanodollars)
    assert ("capped" in paid.flags) == (exact > bounds.hold_nanodollars)


@given(st.sampled_from(list(Outcome)), _reports, _said, _bounds, tariffs)
def test_output_is_never_charged_beyond_what_was_delivered(
    outcome: Outcome, report: Usage | HalfUsage | None, said: Delivered, bounds: Bounds, rates
) -> None:
    """One token a byte at most, marks, stop text and hidden reasoning of a report apart."""
    usage = bill(outcome, report, said, bounds, rates).usage
    most = said.total_bytes
    if outcome is Outcome.FINISHED:
        thought = usage.reasoning_tokens or 0
        hidden = max(0, thought - said.reasoning_bytes)
        hidden += 63 if hidden and thought % 64 == 0 else 0
        most += said.form_bytes + 8 * bounds.copies + bounds.stop_bytes + hidden
    assert usage.completion_tokens <= most


@given(
    st.sampled_from([Outcome.CLIENT_CUT, Outcome.BROKEN]),
    _said,
    st.integers(0, 500),
    st.integers(0, 500),
    _bounds,
    tariffs,
)
def test_more_delivered_never_costs_less(
    outcome: Outcome, said: Delivered, visible: int, thought: int, bounds: Bounds, rates
) -> None:
    """With each byte, and with each running count that grows."""
    more = dataclasses.replace(
        said,
        visible_bytes=said.visible_bytes + visible,
        reasoning_bytes=said.reasoning_bytes + thought,
    )
    if said.running is not None:
        assume(said.running.completion_tokens >= 0)
        grown = said.running.completion_tokens + visible
        more = dataclasses.replace(more, running=UsageUpdate(said.running.prompt_tokens, grown))
    less_paid = bill(outcome, None, said, bounds, rates).cost.charge_nanodollars
    assert less_paid <= bill(outcome, None, more, bounds, rates).cost.charge_nanodollars


def test_content_after_the_wires_last_count_is_counted_by_its_bytes() -> None:
    """A count that came first says nothing of what followed."""
    said = Delivered(running=UsageUpdate(80, 3), visible_bytes=240, bytes_at_running=40)
    assert own_count(said, BOUNDS) == Usage(80, 3 + 200 // 4)


def test_what_an_upstream_says_that_it_charged_is_its_cost_and_not_the_callers() -> None:
    """The caller pays by the endpoint's price; the books have what was really asked for."""
    rates = tariff(Price(prompt=1_000_000, completion=2_000_000), 500)
    bounds = Bounds(hold_nanodollars=10**9, prompt_tokens=100, output_tokens=100, content_bytes=40)
    delivered = Delivered(visible_bytes=40, events=1)
    own = bill(Outcome.FINISHED, Usage(10, 5), delivered, bounds, rates)
    told = Usage(10, 5, cost_picodollars=7_000_001)
    paid = bill(Outcome.FINISHED, told, delivered, bounds, rates)
    assert paid.cost.charge_nanodollars == own.cost.charge_nanodollars
    assert (own.cost_picodollars, paid.cost_picodollars) == (20_000_000, 7_000_001)
    assert paid.cost.upstream_nanodollars == 7_000
    assert paid.cost.upstream_prompt_nanodollars == 3_500
    assert paid.cost.upstream_completion_nanodollars == 3_500


def test_the_text_of_an_answer_is_kept_only_for_those_who_count_it() -> None:
    """All that the model wrote, in order; ids of calls are not the model's."""
    events = [
        ReasoningDelta(0, "hm "),
        TextDelta(0, "süß "),
        ToolCallDelta(0, 0, "call-1", "look", '{"a":'),
        ToolCallDelta(0, 0, None, None, "1}"),
        RefusalDelta(0, "no"),
    ]
    kept, other = Delivered(texts=[]), Delivered()
    for delivered in (kept, other):
        delivered.add(events)
    assert kept.texts is not None
    assert "".join(kept.texts) == 'hm süß look{"a":1}no'
    assert other.texts is None
    assert dataclasses.replace(kept, texts=None) == other


def test_what_was_not_taken_is_not_counted() -> None:
    """Half a character neither; lone surrogates, which some upstreams send, do no harm."""
    delivered = Delivered(texts=[])
    delivered.add([TextDelta(0, "ab\ud800c"), TextDelta(0, "dü!")])
    delivered.take_back(2)
    assert delivered.texts == ["abcd"]
    delivered.take_back(1_000)
    assert (delivered.texts, delivered.total_bytes) == ([""], 0)


@given(st.lists(st.text()), st.integers(0, 200))
def test_what_is_left_to_count_is_no_more_than_what_was_taken(texts: list[str], back: int) -> None:
    """A beginning of the answer, in at most the bytes that are charged without a tokenizer."""
    delivered = Delivered(texts=[])
    delivered.add([TextDelta(0, text) for text in texts])
    delivered.add([ToolCallDelta(0, 0, "call-1", "look", "{}")])
    delivered.take_back(back)
    assert delivered.texts is not None
    kept = "".join(delivered.texts)
    assert ("".join(texts) + "look{}").startswith(kept)
    assert len(kept.encode()) <= delivered.total_bytes


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 900))
def test_a_count_of_ours_is_charged_within_the_bounds(prompt: int, count: int, size: int) -> None:
    """Never above a token for each byte, nor above what was held."""
    delivered = Delivered(visible_bytes=size, events=1, texts=[])
    delivered.counted(prompt, count)
    paid = bill(Outcome.CLIENT_CUT, None, delivered, BOUNDS, TARIFF)
    assert paid.usage == Usage(min(prompt, 1000), min(count, size, 500))
    assert paid.flags == ("cut", "own_count")
