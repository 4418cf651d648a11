"""Drops endpoints whose breaker is open, unless none would be left."""

from __future__ import annotations

from policies.types import Candidate, Policy, Rejection, RouteContext, Verdict


def build() -> Policy:
    """Return the policy."""
    return healthy


def healthy(context: RouteContext, candidates: tuple[Candidate, ...]) -> Verdict:
    """Keep available endpoints; with none available keep all: a wrong guess beats none."""
    del context
    up = tuple(candidate for candidate in candidates if candidate.view.available)
    if not up:
        return Verdict(candidates)
    down = (candidate.view.id for candidate in candidates if not candidate.view.available)
    return Verdict(up, tuple(Rejection(name, "unhealthy", "its breaker is open") for name in down))
