"""What every policy must do.

Inherit and give `policy`. A policy is a pure function over candidates: it may drop some, each with
a reason, and set the order of the rest.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.planner import plan
from policies.pricing import Price, tariff
from policies.types import Candidate, EndpointView, Policy, RouteContext

FIELDS = ("tools", "seed", "image_url", "service_tier")

inherited = settings(suppress_health_check=[HealthCheck.differing_executors])
"""Each suite is a policy of its own, and no example is kept from one for another."""

_rates = st.integers(0, 10**7)
_sizes = st.none() | st.integers(1, 10**6)
_fields = st.frozensets(st.sampled_from(FIELDS))

prices = st.builds(
    Price,
    prompt=_rates,
    completion=_rates,
    cached=st.none() | _rates,
    cache_write=st.none() | _rates,
    reasoning=st.none() | _rates,
    request=_rates,
    image=_rates,
)
tariffs = st.builds(tariff, prices, st.integers(0, 20_000))
contexts = st.builds(
    RouteContext,
    required=_fields,
    droppable=st.booleans(),
    max_tokens=_sizes,
    prompt_bytes=st.integers(0, 10**7),
    images=st.integers(0, 5),
    copies=st.integers(1, 128),
    output_default_tokens=st.integers(1, 16_384),
    generates=st.booleans(),
)


def _numbered(views: list[EndpointView]) -> list[EndpointView]:
    return [replace(view, id=f"e{at}", position=at) for at, view in enumerate(views)]


endpoint_lists = st.lists(
    st.builds(
        EndpointView,
        id=st.just(""),
        model=st.just("acme/chat"),
        provider=st.sampled_from(["a", "b"]),
        position=st.just(0),
        tariff=tariffs,
        fields=st.none() | _fields,
        refused=_fields,
        context_tokens=_sizes,
        max_output_tokens=_sizes,
        max_image_tokens=st.integers(0, 4096),
        available=st.booleans(),
        first_token_ms=st.none() | st.floats(0, 10_000),
    ),
    max_size=6,
).map(_numbered)


class PolicyContract(ABC):
    """The laws of ``policies.types.Policy``."""

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """The policy to prove."""

    @staticmethod
    def candidates(context: RouteContext, views: list[EndpointView]) -> tuple[Candidate, ...]:
        """Return candidates as the planner makes them."""
        return plan(context, views, []).candidates

    @inherited
    @given(context=contexts, views=endpoint_lists)
    def test_the_same_question_has_the_same_answer(
        self, context: RouteContext, views: list[EndpointView]
    ) -> None:
        """It depends on its arguments alone: no clock, no chance, no memory."""
        candidates = self.candidates(context, views)
        first = self.policy(context, candidates)
        assert self.policy(context, candidates) == first
        assert self.policy(copy.deepcopy(context), copy.deepcopy(candidates)) == first

    @inherited
    @given(context=contexts, views=endpoint_lists)
    def test_it_never_adds_repeats_or_changes_a_candidate(
        self, context: RouteContext, views: list[EndpointView]
    ) -> None:
        """What it keeps is what it was given, the very same objects, each once."""
        candidates = self.candidates(context, views)
        before = copy.deepcopy((context, candidates))
        kept = self.policy(context, candidates).candidates
        assert (context, candidates) == before
        assert {id(entry) for entry in kept} <= {id(entry) for entry in candidates}
        assert len({id(entry) for entry in kept}) == len(kept)

    @inherited
    @given(context=contexts, views=endpoint_lists)
    def test_whatever_it_drops_has_one_reason(
        self, context: RouteContext, views: list[EndpointView]
    ) -> None:
        """Kept or rejected, never both, never neither; the reason has words and a name."""
        candidates = self.candidates(context, views)
        kept, rejections = self.policy(context, candidates)
        names = [entry.view.id for entry in kept] + [entry.endpoint for entry in rejections]
        assert sorted(names) == sorted(entry.view.id for entry in candidates)
        for rejection in rejections:
            assert rejection.detail
            assert rejection.reason.replace("_", "").isalpha()

    @inherited
    @given(context=contexts, views=endpoint_lists)
    def test_it_agrees_with_itself(self, context: RouteContext, views: list[EndpointView]) -> None:
        """Applied to what it kept, it keeps all of it in the same order."""
        kept = self.policy(context, self.candidates(context, views)).candidates
        again = self.policy(context, kept)
        assert again.candidates == kept
        assert again.rejections == ()

    def test_nothing_comes_of_nothing(self) -> None:
        """No candidates are no error."""
        context = RouteContext(frozenset(), False, None, 0, 0, 1, 1)
        assert self.policy(context, ()) == ((), ())
