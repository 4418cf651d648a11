"""Orders endpoints by likely cost; equal costs by measured first-token latency."""

from __future__ import annotations

from policies.types import Candidate, Policy, RouteContext, Verdict


def build() -> Policy:
    """Return the policy."""
    return cheapest


def cheapest(context: RouteContext, candidates: tuple[Candidate, ...]) -> Verdict:
    """Order by cost, then latency (unmeasured first, so that it gets measured), then position."""
    del context

    def rank(candidate: Candidate) -> tuple[int, float, int]:
        view = candidate.view
        return candidate.estimate_picodollars, view.first_token_ms or 0.0, view.position

    return Verdict(tuple(sorted(candidates, key=rank)))
