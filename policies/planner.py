"""From a request and the endpoints of one model to a route plan; a pure function."""

from __future__ import annotations

from collections.abc import Sequence, Set

from backends.types import Usage
from policies.pricing import cost, worst_case_nanodollars
from policies.types import (
    UNBOUNDED,
    Candidate,
    EndpointView,
    Policy,
    Rejection,
    RouteContext,
    RoutePlan,
)

PROMPT_OVERHEAD_TOKENS = 256
"""What a chat template may add to the bytes of the messages: role marks, a system prompt."""

TOOLS_OVERHEAD_TOKENS = 1024
"""What an upstream may itself tell a model of its tools: with small bodies more than they have
bytes, as Anthropic's recorded answers show."""

UNKNOWN_WINDOW_TOKENS = 1_048_576
"""What files and videos are held at where no window is known: the largest that is common."""

LIKELY_OUTPUT_TOKENS = 300
"""The output assumed when endpoints are compared by cost."""

_BYTES_PER_TOKEN = 4


def plan(
    context: RouteContext, views: Sequence[EndpointView], policies: Sequence[Policy]
) -> RoutePlan:
    """Return the candidates in the order to try them, and why the others are out.

    Args:
        context: what the request asks.
        views: the endpoints of one model, in configured order.
        policies: applied in turn; the last one's order stands.
    """
    candidates = tuple(_candidate(context, view) for view in views)
    rejections: list[Rejection] = []
    for policy in policies:
        candidates, dropped = policy(context, candidates)
        rejections.extend(dropped)
    return RoutePlan(candidates, tuple(rejections))


def _candidate(context: RouteContext, view: EndpointView) -> Candidate:
    bound = output_bound(context, view)
    prompt_bound = context.prompt_bytes + overhead_tokens(context.required)
    window, least = view.context_tokens, context.max_tokens or 1
    tight = window is not None and context.generates and prompt_bound + least > window
    prompt_bound += context.images * view.max_image_tokens
    if not UNBOUNDED.isdisjoint(context.required):
        prompt_bound = max(prompt_bound, view.context_tokens or UNKNOWN_WINDOW_TOKENS)
    hold = worst_case_nanodollars(
        view.tariff,
        prompt_bound=prompt_bound,
        output_bound=bound,
        copies=context.copies,
        images=context.images,
    )
    likely = Usage(
        context.prompt_bytes // _BYTES_PER_TOKEN,
        min(bound, LIKELY_OUTPUT_TOKENS) * context.copies,
    )
    estimate = cost(view.tariff.price, likely, context.images).total_picodollars
    dropped = tuple(sorted(view.lacks(context.required))) if context.droppable else ()
    return Candidate(view, bound, prompt_bound, hold, estimate, dropped, tight)


def overhead_tokens(required: Set[str]) -> int:
    """Return the most that an upstream adds to what a request says itself."""
    return PROMPT_OVERHEAD_TOKENS + (TOOLS_OVERHEAD_TOKENS if "tools" in required else 0)


def recounted(candidate: Candidate, prompt_bound: int, copies: int) -> Candidate:
    """Return a candidate as it is held once its prompt was counted: never for more than before.

    For requests without images, whose tokens no count of texts can know.

    Args:
        candidate: as planned by bytes.
        prompt_bound: the tokens that were counted, and ``overhead_tokens``.
        copies: how many answers there will be.
    """
    prompt_bound = min(candidate.prompt_bound, prompt_bound)
    hold = worst_case_nanodollars(
        candidate.view.tariff,
        prompt_bound=prompt_bound,
        output_bound=candidate.output_bound,
        copies=copies,
        images=0,
    )
    return candidate._replace(prompt_bound=prompt_bound, hold_nanodollars=hold)


def output_bound(context: RouteContext, view: EndpointView) -> int:
    """Return the most tokens one answer may have at an endpoint."""
    if not context.generates:
        return 0
    if context.max_tokens is not None:
        return context.max_tokens
    caps = (context.output_default_tokens, view.max_output_tokens, view.context_tokens)
    return min(cap for cap in caps if cap is not None)
