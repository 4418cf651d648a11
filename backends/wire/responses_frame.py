"""What a Responses answer says beside its items: what it repeats of its request, and its usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backends.types import AnswerHead, ChatRequest, Cost, Usage
from backends.wire.openai_reply import usd

_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
    "frequency_penalty": None,
    "presence_penalty": None,
}
"""What a response repeats of its request, and what it says where the request was silent."""


def frame_of(head: AnswerHead, request: ChatRequest) -> dict[str, Any]:
    """Return what a response says before anything of the answer is known."""
    asked = request.native.body if request.native is not None else {}
    echoed = {k: v if asked.get(k) is None else asked[k] for k, v in _ECHOED.items()}
    config = asked.get("text") or {}
    tool = {"name": "", "description": None, "parameters": None, "strict": None}
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created_s,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "provider": head.provider,
        "output": [],
        "previous_response_id": None,
        "store": False,
        "text": {**config, "format": config.get("format") or {"type": "text"}},
        "tools": [{**tool, **given} for given in asked.get("tools") or ()],
        "usage": None,
        **echoed,
    }


def usage_body(usage: Usage, cost: Cost) -> dict[str, Any]:
    """Return ``usage``; where a number is wanted that nobody reported, it is 0."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "cost": usd(cost.charge_nanodollars),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": usd(cost.upstream_nanodollars),
            "upstream_inference_input_cost": usd(cost.upstream_prompt_nanodollars),
            "upstream_inference_output_cost": usd(cost.upstream_completion_nanodollars),
        },
    }
