"""Each policy keeps the contract and does what its name says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from msgspec.structs import replace

from policies import cheapest, feasible, healthy, ordered
from policies.planner import plan
from policies.pricing import Price, tariff
from policies.types import EndpointView, Policy, RouteContext, Verdict
from tests.contracts.policy_contract import PolicyContract, contexts, endpoint_lists

CONTEXT = RouteContext(
    required=frozenset(),
    droppable=False,
    max_tokens=None,
    prompt_bytes=400,
    images=0,
    copies=1,
    output_default_tokens=100,
)


def view(id: str = "a", position: int = 0, price: Price | None = None, **more: Any) -> EndpointView:
    """Return an endpoint."""
    rates = tariff(price or Price(1, 1), 0)
    return EndpointView(id, "acme/chat", "acme", position, rates, more.pop("fields", None), **more)


def verdict(policy: Policy, context: RouteContext, *views: EndpointView) -> Verdict:
    """Return what a policy makes of the candidates of these endpoints."""
    return policy(context, plan(context, views, []).candidates)


def kept(policy: Policy, context: RouteContext, *views: EndpointView) -> list[str]:
    """Return the endpoints that a policy keeps, in its order."""
    return [candidate.view.id for candidate in verdict(policy, context, *views).candidates]


class TestFeasible(PolicyContract):
    """Drops what cannot honor the request."""

    policy = staticmethod(feasible.build())

    @pytest.mark.parametrize(
        ("endpoint", "lacking"),
        [
            (view(), ()),
            (view(fields=frozenset({"tools", "seed"})), ()),
            (view(fields=frozenset({"tools"})), ("seed",)),
            (view(fields=frozenset()), ("seed", "tools")),
            (view(refused=frozenset({"tools"})), ("tools",)),
            (view(refused=frozenset({"temperature"})), ()),
        ],
    )
    def test_an_endpoint_that_lacks_a_field_is_out_by_name(
        self, endpoint: EndpointView, lacking: tuple[str, ...]
    ) -> None:
        """Every lacking field is named, for the 400 that lists fields and endpoints."""
        context = replace(CONTEXT, required=frozenset({"tools", "seed"}))
        _, rejections = verdict(self.policy, context, endpoint)
        assert [entry.fields for entry in rejections] == ([lacking] if lacking else [])
        for entry in rejections:
            assert entry.reason == "fields"
            assert all(name in entry.detail for name in lacking)

    def test_a_caller_may_allow_dropping_fields_but_not_parts_of_the_prompt(self) -> None:
        """Without its image the question is another one."""
        blind = view(fields=frozenset())
        context = replace(CONTEXT, required=frozenset({"tools"}), droppable=True)
        assert kept(self.policy, context, blind) == ["a"]
        context = replace(context, required=frozenset({"tools", "image_url"}))
        [rejection] = verdict(self.policy, context, blind).rejections
        assert rejection.fields == ("image_url",)
        context = replace(context, required=frozenset({"tools", "tools.custom"}))
        [rejection] = verdict(self.policy, context, blind).rejections
        assert rejection.fields == ("tools.custom",)

    def test_a_field_that_changes_the_price_needs_a_price(self) -> None:
        """A service tier costs what no configured price says: no endpoint honors it."""
        context = replace(CONTEXT, required=frozenset({"service_tier"}))
        assert kept(self.policy, context, view()) == []
        assert view().lacks({"service_tier"})

    @pytest.mark.parametrize(
        ("caps", "fits"),
        [
            ({}, True),
            ({"max_output_tokens": 50}, True),
            ({"max_output_tokens": 49}, False),
            ({"context_tokens": 50}, True),
            ({"context_tokens": 49}, False),
            ({"context_tokens": 49, "max_output_tokens": 100}, False),
        ],
    )
    def test_an_output_limit_above_the_cap_is_infeasible_not_clamped(
        self, caps: dict[str, int], fits: bool
    ) -> None:
        """The caller asked for that many; fewer is another request."""
        context = replace(CONTEXT, max_tokens=50)
        kept_one, rejections = verdict(self.policy, context, view(**caps))
        assert len(kept_one) == fits
        assert [entry.reason for entry in rejections] == ([] if fits else ["max_tokens"])

    def test_an_unknown_window_is_never_infeasible_by_size(self) -> None:
        """What is not configured cannot refuse."""
        context = replace(CONTEXT, max_tokens=10**9, prompt_bytes=10**9)
        assert kept(self.policy, context, view()) == ["a"]

    def test_the_order_stays(self) -> None:
        """It only drops."""
        views = [view("b", 1), view("a", 0), view("c", 2)]
        assert kept(self.policy, CONTEXT, *views) == ["b", "a", "c"]

    @pytest.mark.parametrize(
        ("prompt", "limit", "over", "fields"),
        [
            (99, None, 0, ()),
            (100, None, 1, ()),
            (90, 10, 0, ()),
            (90, 11, 1, ("max_tokens",)),
            (120, 50, 21, ()),
        ],
    )
    def test_a_counted_prompt_needs_room_for_what_is_asked_or_one_token(
        self, prompt: int, limit: int | None, over: int, fields: tuple[str, ...]
    ) -> None:
        """Said by how many; the limit is at fault only where a smaller one would do."""
        rejection = feasible.too_long(view(context_tokens=100), prompt, limit)
        assert bool(rejection) == bool(over)
        if rejection is not None:
            assert (rejection.reason, rejection.fields) == ("context_length", fields)
            assert f"at least {prompt} tokens" in rejection.detail
            assert f"are {over} above its context window of 100" in rejection.detail
        assert feasible.too_long(view(), prompt, limit) is None


class TestHealthy(PolicyContract):
    """Drops what is down."""

    policy = staticmethod(healthy.build())

    def test_an_endpoint_with_an_open_breaker_is_out(self) -> None:
        """While another one is up."""
        views = [view("a"), view("b", 1, available=False), view("c", 2)]
        assert kept(self.policy, CONTEXT, *views) == ["a", "c"]
        [rejection] = verdict(self.policy, CONTEXT, *views).rejections
        assert (rejection.endpoint, rejection.reason) == ("b", "unhealthy")

    def test_with_all_down_all_are_tried(self) -> None:
        """A wrong guess beats a certain failure."""
        views = [view("a", available=False), view("b", 1, available=False)]
        assert kept(self.policy, CONTEXT, *views) == ["a", "b"]


class TestCheapest(PolicyContract):
    """Orders by likely cost."""

    policy = staticmethod(cheapest.build())

    def test_the_likely_bill_decides_not_the_price_of_one_side(self) -> None:
        """100 prompt and 100 output tokens: 300 + 100 is below 100 + 400."""
        views = [view("a", 0, Price(1, 4)), view("b", 1, Price(3, 1)), view("c", 2, Price(0, 3))]
        assert kept(self.policy, CONTEXT, *views) == ["c", "b", "a"]

    def test_a_fee_per_request_counts(self) -> None:
        """It is part of the bill."""
        views = [view("a", 0, Price(1, 1, request=1000)), view("b", 1, Price(3, 3))]
        assert kept(self.policy, CONTEXT, *views) == ["b", "a"]

    def test_equal_costs_are_ordered_by_measured_latency(self) -> None:
        """What was never measured comes first, so that it gets measured; then configured order."""
        views = [
            view("slow", 0, first_token_ms=900.0),
            view("fast", 1, first_token_ms=90.0),
            view("new", 2),
            view("newer", 3),
        ]
        assert kept(self.policy, CONTEXT, *views) == ["new", "newer", "fast", "slow"]

    @given(context=contexts, views=endpoint_lists)
    def test_no_endpoint_comes_before_a_cheaper_one(
        self, context: RouteContext, views: list[EndpointView]
    ) -> None:
        """By the estimate that the plan shows."""
        order = [c.estimate_picodollars for c in verdict(self.policy, context, *views).candidates]
        assert order == sorted(order)


class TestOrdered(PolicyContract):
    """Keeps the configured order."""

    policy = staticmethod(ordered.build())

    def test_the_position_decides(self) -> None:
        """Whatever came before it."""
        views = [view("c", 2), view("a", 0), view("b", 1)]
        assert kept(self.policy, CONTEXT, *views) == ["a", "b", "c"]
