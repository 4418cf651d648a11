"""What the planner sees and says. Plain frozen values: no I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from policies.pricing import Tariff

Strategy: TypeAlias = Literal["ordered", "cheapest"]

UNPRICED = frozenset({"service_tier"})
"""Fields that change the upstream's price. None can be configured, so none is honored."""


UNBOUNDED = frozenset({"file", "video_url"})
"""Parts of a prompt whose bytes do not bound its tokens: an address says nothing of what is there,
and a small document may have many pages. What bounds them is the window."""


class EndpointView(msgspec.Struct, frozen=True):
    """One endpoint at one moment: what it is, what it costs, how it has been doing."""

    id: str
    model: str
    """The public name of the model it serves."""

    provider: str
    position: int
    """Its place in the model's list, from 0."""

    tariff: Tariff
    fields: frozenset[str] | None
    """Request fields and part types it honors; None means every known one."""

    refused: frozenset[str] = frozenset()
    """Fields and part types that configuration says it lacks."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    caps_output: bool = False
    max_image_tokens: int = 0
    available: bool = True
    """False while its breaker is open."""

    first_token_ms: float | None = None
    """A moving average of what was measured; None before the first answer."""

    def lacks(self, required: Set[str]) -> frozenset[str]:
        """Return those of ``required`` that this endpoint does not honor."""
        if not required:
            return frozenset()
        unknown = required - self.fields if self.fields is not None else frozenset()
        return frozenset(unknown | (required & self.refused) | (required & UNPRICED))


class RouteContext(msgspec.Struct, frozen=True):
    """What a request asks of its endpoints."""

    required: frozenset[str]
    droppable: bool
    """The caller allows dropping fields that an endpoint lacks."""

    max_tokens: int | None
    prompt_bytes: int
    images: int
    copies: int
    """How many answers are asked for (``n``)."""

    output_default_tokens: int
    """The output bound where neither caller nor endpoint gives one."""

    generates: bool = True
    """False for embeddings: there is no output, and nothing to hold for it."""


class Candidate(NamedTuple):
    """An endpoint that may serve the request."""

    view: EndpointView
    output_bound: int
    """The most output tokens one answer may have here."""

    prompt_bound: int
    """The most prompt tokens the request can have here."""

    hold_nanodollars: int
    """The worst case, with the markup."""

    estimate_picodollars: int
    """The likely upstream cost, for comparing endpoints."""

    dropped: tuple[str, ...] = ()
    """Fields that are left out here because the caller allowed it."""

    tight: bool = False
    """By its bytes the prompt may leave no room for the output in the window: a count may tell."""


class Rejection(msgspec.Struct, frozen=True):
    """Why an endpoint is not in the plan."""

    endpoint: str
    reason: str
    """Machine-readable: ``fields``, ``max_tokens``, ``context_length``, ``unhealthy`` ..."""

    detail: str
    fields: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What a policy leaves of the candidates, in its order, and what it dropped."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...] = ()


Policy: TypeAlias = Callable[[RouteContext, tuple[Candidate, ...]], Verdict]
"""A pure function: it drops with a reason or reorders; it never adds and never changes."""


class RoutePlan(msgspec.Struct, frozen=True):
    """Candidates in the order to try them, and those rejected, with reasons."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]

    def keeping(
        self, kept: tuple[Candidate, ...], reason: Callable[[Candidate], Rejection]
    ) -> RoutePlan:
        """Return the plan with only ``kept``; ``reason`` says why each other one is out."""
        dropped = tuple(reason(entry) for entry in self.candidates if entry not in kept)
        return msgspec.structs.replace(
            self, candidates=kept, rejections=(*self.rejections, *dropped)
        )

    @property
    def hold_nanodollars(self) -> int:
        """The worst case of the dearest candidate."""
        return max(candidate.hold_nanodollars for candidate in self.candidates)


def chain(plans: Sequence[RoutePlan]) -> RoutePlan:
    """Join the plans of several models in the caller's order."""
    if len(plans) == 1:
        return plans[0]
    return RoutePlan(
        tuple(candidate for plan in plans for candidate in plan.candidates),
        tuple(rejection for plan in plans for rejection in plan.rejections),
    )
