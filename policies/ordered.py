"""Tries endpoints in configured order."""

from __future__ import annotations

from policies.types import Candidate, Policy, RouteContext, Verdict


def build() -> Policy:
    """Return the policy."""
    return ordered


def ordered(context: RouteContext, candidates: tuple[Candidate, ...]) -> Verdict:
    """Order by position."""
    del context
    return Verdict(tuple(sorted(candidates, key=lambda candidate: candidate.view.position)))
