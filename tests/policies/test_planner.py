"""A route plan: every endpoint once, and a hold that covers any bill."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from backends.types import Usage
from policies import cheapest, feasible, healthy, ordered
from policies.charging import Bounds, Delivered, Outcome, bill
from policies.planner import (
    PROMPT_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    UNKNOWN_WINDOW_TOKENS,
    output_bound,
    overhead_tokens,
    plan,
    recounted,
)
from policies.pricing import Price, cost, tariff
from policies.types import Candidate, EndpointView, Rejection, RouteContext, chain
from tests.contracts.policy_contract import contexts, endpoint_lists
from tests.policies.test_policies import CONTEXT, view

POLICIES = (feasible.build(), healthy.build(), cheapest.build())
_lists = st.lists(
    st.sampled_from([feasible.build(), healthy.build(), cheapest.build(), ordered.build()]),
    max_size=4,
)


@given(contexts, endpoint_lists, _lists)
def test_every_endpoint_is_a_candidate_or_rejected_once(
    context: RouteContext, views: list[EndpointView], policies: list
) -> None:
    """Nothing is added, nothing disappears, whatever the policies and their order."""
    route = plan(context, views, policies)
    names = [entry.view.id for entry in route.candidates]
    names += [entry.endpoint for entry in route.rejections]
    assert sorted(names) == [one.id for one in views]
    assert {entry.view for entry in route.candidates} <= set(views)


@given(contexts, endpoint_lists)
def test_the_same_question_has_the_same_plan(
    context: RouteContext, views: list[EndpointView]
) -> None:
    """A plan can be shown as a dry run and be true."""
    assert plan(context, views, POLICIES) == plan(context, views, POLICIES)


def _share(draw: st.DataObject, whole: int) -> int | None:
    return draw.draw(st.none() | st.integers(0, whole))


@given(contexts, endpoint_lists.filter(bool), st.data(), st.sampled_from(list(Outcome)))
def test_the_hold_covers_the_bill_of_any_usage_within_its_bounds(
    context: RouteContext, views: list[EndpointView], draw: st.DataObject, outcome: Outcome
) -> None:
    """Every kind of token at its dearest, every choice, every image, with the markup."""
    route = plan(context, views, [])
    candidate = draw.draw(st.sampled_from(route.candidates))
    prompt = draw.draw(st.integers(0, candidate.prompt_bound))
    completion = draw.draw(st.integers(0, candidate.output_bound * context.copies))
    cached = _share(draw, prompt)
    written = _share(draw, prompt - (cached or 0))
    usage = Usage(prompt, completion, cached, written, _share(draw, completion))
    bounds = Bounds(
        hold_nanodollars=10**40,
        prompt_tokens=candidate.prompt_bound,
        output_tokens=candidate.output_bound * context.copies,
        content_bytes=context.prompt_bytes,
        images=context.images,
        copies=context.copies,
    )
    delivered = Delivered(visible_bytes=draw.draw(st.integers(0, 10**9)))
    paid = bill(outcome, usage, delivered, bounds, candidate.view.tariff)
    assert paid.cost.charge_nanodollars <= candidate.hold_nanodollars <= route.hold_nanodollars


@given(contexts, endpoint_lists)
def test_more_to_do_never_holds_less(context: RouteContext, views: list[EndpointView]) -> None:
    """A longer prompt, another image or another copy."""
    holds = [c.hold_nanodollars for c in plan(context, views, []).candidates]
    for more in (
        replace(context, prompt_bytes=context.prompt_bytes + 1000),
        replace(context, images=context.images + 1),
        replace(context, copies=context.copies + 1),
    ):
        dearer = [c.hold_nanodollars for c in plan(more, views, []).candidates]
        assert all(a <= b for a, b in zip(holds, dearer, strict=True))


def test_the_hold_is_what_the_design_says() -> None:
    """Prompt bytes, the template's overhead, images and copies, at the dearest rate per kind."""
    price = Price(10, 100, cached=2, cache_write=13, reasoning=150, request=7, image=5)
    endpoint = replace(view(price=price, max_image_tokens=1000), tariff=tariff(price, 500))
    context = replace(CONTEXT, max_tokens=20, images=2, copies=3)
    [candidate] = plan(context, [endpoint], []).candidates
    prompt = 400 + PROMPT_OVERHEAD_TOKENS + 2 * 1000
    assert candidate.prompt_bound == prompt
    cost = prompt * 13 + 20 * 3 * 150 + 7 + 2 * 5
    assert candidate.hold_nanodollars == -(-cost * 105 // 100_000)


@given(contexts, endpoint_lists)
def test_what_has_no_output_holds_the_prompt_alone(
    context: RouteContext, views: list[EndpointView]
) -> None:
    """An embedding: no completion rate applies, however dear it is."""
    silent = replace(context, generates=False, max_tokens=None)
    for candidate in plan(silent, views, []).candidates:
        priced = candidate.view.tariff
        price = dataclasses.replace(priced.price, completion=0, reasoning=None)
        cheap = tariff(price, priced.markup_bp)
        [prompt] = plan(silent, [replace(candidate.view, tariff=cheap)], []).candidates
        assert candidate.output_bound == 0
        assert candidate.hold_nanodollars == prompt.hold_nanodollars


@pytest.mark.parametrize(
    ("asked", "cap", "window", "bound"),
    [
        (None, None, None, 100),
        (None, 50, None, 50),
        (None, None, 60, 60),
        (None, 50, 40, 40),
        (None, 500, 600, 100),
        (70, None, None, 70),
        (70, 500, 600, 70),
        (7000, None, None, 7000),
    ],
)
def test_the_output_bound_is_what_is_asked_or_the_least_cap(
    asked: int | None, cap: int | None, window: int | None, bound: int
) -> None:
    """min(default, caps) only where the caller gave none."""
    context = replace(CONTEXT, max_tokens=asked)
    endpoint = view(max_output_tokens=cap, context_tokens=window)
    assert output_bound(context, endpoint) == bound


def test_fields_that_may_be_dropped_are_named_per_candidate() -> None:
    """For the header that says what was dropped; strict callers have none."""
    context = replace(CONTEXT, required=frozenset({"tools", "seed"}), droppable=True)
    endpoint = view(fields=frozenset({"seed"}))
    [candidate] = plan(context, [endpoint], POLICIES).candidates
    assert candidate.dropped == ("tools",)
    [candidate] = plan(replace(context, droppable=False), [endpoint], []).candidates
    assert candidate.dropped == ()


def test_plans_of_several_models_follow_the_callers_order() -> None:
    """All endpoints of the first model come before those of the second."""
    first = plan(CONTEXT, [view("a1"), view("a2", 1)], POLICIES)
    second = plan(CONTEXT, [view("b1", fields=frozenset())], POLICIES)
    whole = chain([second, first])
    assert [c.view.id for c in whole.candidates] == ["b1", "a1", "a2"]
    assert chain([]).candidates == ()


def test_what_a_plan_no_longer_keeps_has_a_reason() -> None:
    """Leaving out the dearest candidate is explained like any other drop."""
    route = plan(CONTEXT, [view("a"), view("b", 1, Price(50, 50))], POLICIES)

    def dear(candidate: Candidate) -> Rejection:
        return Rejection(candidate.view.id, "credit", "too dear")

    less = route.keeping(route.candidates[:1], dear)
    assert [c.view.id for c in less.candidates] == ["a"]
    assert less.rejections == (Rejection("b", "credit", "too dear"),)
    assert less.hold_nanodollars < route.hold_nanodollars


@given(contexts, endpoint_lists.filter(bool), st.data(), st.integers(0, 10**6))
def test_a_counted_prompt_is_never_held_for_more_and_its_hold_covers_its_bill(
    context: RouteContext, views: list[EndpointView], draw: st.DataObject, count: int
) -> None:
    """As by bytes: any usage within the bounds, tiers and dearest kinds included."""
    context = replace(context, images=0)
    candidate = draw.draw(st.sampled_from(plan(context, views, []).candidates))
    bound = count + overhead_tokens(context.required)
    counted = recounted(candidate, bound, context.copies)
    assert counted.prompt_bound == min(candidate.prompt_bound, bound)
    assert counted.hold_nanodollars <= candidate.hold_nanodollars
    if counted.prompt_bound == candidate.prompt_bound:
        assert counted == candidate
    prompt = draw.draw(st.integers(0, counted.prompt_bound))
    completion = draw.draw(st.integers(0, counted.output_bound * context.copies))
    cached = _share(draw, prompt)
    usage = Usage(
        prompt,
        completion,
        cached,
        _share(draw, prompt - (cached or 0)),
        _share(draw, completion),
    )
    tariff = counted.view.tariff
    upstream = cost(tariff.price, usage).total_picodollars
    assert tariff.charge_nanodollars(upstream) <= counted.hold_nanodollars


@pytest.mark.parametrize("part", ["file", "video_url"])
def test_media_whose_bytes_bound_nothing_are_held_at_the_window(part: str) -> None:
    """An address of 30 bytes may be a document of a thousand pages."""
    context = replace(CONTEXT, required=frozenset({part}))
    route = plan(context, [view(context_tokens=200_000)], POLICIES)
    assert route.candidates[0].prompt_bound == 200_000
    assert (
        route.hold_nanodollars
        == plan(
            replace(CONTEXT, prompt_bytes=200_000 - PROMPT_OVERHEAD_TOKENS),
            [view(context_tokens=200_000)],
            POLICIES,
        ).hold_nanodollars
    )


@pytest.mark.parametrize("part", ["file", "video_url"])
def test_media_without_a_known_window_are_held_at_the_largest_that_is_common(part: str) -> None:
    """Nothing else says what they may cost; a known window is taken, whichever it is."""
    context = replace(CONTEXT, required=frozenset({part}))
    small = replace(view("b", 1), context_tokens=8_192)
    route = plan(context, [view("a"), small], POLICIES)
    held = {candidate.view.id: candidate.prompt_bound for candidate in route.candidates}
    assert held == {"a": UNKNOWN_WINDOW_TOKENS, "b": 8_192}
    assert route.rejections == ()


def test_tools_are_held_with_what_models_are_told_about_them() -> None:
    """In every dialect: a request with one small tool has fewer bytes than that."""
    plain = plan(CONTEXT, [view()], POLICIES).candidates[0]
    tools = plan(replace(CONTEXT, required=frozenset({"tools"})), [view()], POLICIES).candidates[0]
    assert tools.prompt_bound == plain.prompt_bound + TOOLS_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("window", "changes", "tight"),
    [
        (None, {}, False),
        (400 + PROMPT_OVERHEAD_TOKENS, {}, True),
        (401 + PROMPT_OVERHEAD_TOKENS, {}, False),
        (449 + PROMPT_OVERHEAD_TOKENS, {"max_tokens": 50}, True),
        (450 + PROMPT_OVERHEAD_TOKENS, {"max_tokens": 50}, False),
        (1, {"generates": False}, False),
        (401 + PROMPT_OVERHEAD_TOKENS, {"images": 3}, False),
    ],
)
def test_a_window_is_tight_where_bytes_and_output_are_above_it(
    window: int | None, changes: dict[str, Any], tight: bool
) -> None:
    """Of what a count can tell about: vectors have no output, images no text."""
    [candidate] = plan(
        replace(CONTEXT, **changes), [view(context_tokens=window, max_image_tokens=9)], []
    ).candidates
    assert candidate.tight == tight
