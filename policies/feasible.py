"""Drops endpoints that cannot honor the request as it is. Nothing is clamped."""

from __future__ import annotations

from policies.types import (
    Candidate,
    EndpointView,
    Policy,
    Rejection,
    RouteContext,
    Verdict,
)

NEVER_DROPPED = frozenset(
    {
        "image_url",
        "input_audio",
        "video_url",
        "file",
        "embeddings",
        "embeddings.input",
        "completions.prompt",
        "completions.suffix",
        "tools.custom",
    }
)
"""What is asked, and parts of a prompt: without them it would be another question.

A tool of another type than functions cannot be left out of ``tools`` like a field: calls of it may
stand in the conversation, and an answer without it is no answer.
"""


def build() -> Policy:
    """Return the policy."""
    return feasible


def feasible(context: RouteContext, candidates: tuple[Candidate, ...]) -> Verdict:
    """Keep endpoints that honor every required field and have room for the output."""
    kept, rejections = [], []
    for candidate in candidates:
        rejection = _rejection(context, candidate)
        if rejection is None:
            kept.append(candidate)
        else:
            rejections.append(rejection)
    return Verdict(tuple(kept), tuple(rejections))


def too_long(view: EndpointView, prompt_tokens: int, max_tokens: int | None) -> Rejection | None:
    """Say why a prompt of at least so many tokens cannot be answered at an endpoint; or None.

    Where the prompt leaves room for an answer, the caller's own limit is what does not fit.
    """
    window = view.context_tokens
    if window is None:
        return None
    least, words, fields = 1, "one of output", tuple[str, ...]()
    if max_tokens is not None and prompt_tokens < window:
        least, words, fields = max_tokens, f"max_tokens {max_tokens}", ("max_tokens",)
    over = prompt_tokens + least - window
    if over <= 0:
        return None
    detail = (
        f"a prompt of at least {prompt_tokens} tokens and {words} are {over} above its context "
        f"window of {window} tokens"
    )
    return Rejection(view.id, "context_length", detail, fields)


def _rejection(context: RouteContext, candidate: Candidate) -> Rejection | None:
    view = candidate.view
    lacking = view.lacks(context.required)
    if context.droppable:
        lacking &= NEVER_DROPPED
    if lacking:
        fields = tuple(sorted(lacking))
        return Rejection(view.id, "fields", f"does not honor {', '.join(fields)}", fields)
    wanted = context.max_tokens
    for name, cap in (
        ("output cap", view.max_output_tokens),
        ("context window", view.context_tokens),
    ):
        if wanted is not None and cap is not None and wanted > cap:
            detail = f"max_tokens {wanted} is above its {name} of {cap} tokens"
            return Rejection(view.id, "max_tokens", detail, ("max_tokens",))
    return None
