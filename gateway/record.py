"""The generation record: what is kept of each request that reached the ledger. No text of it.

Field names are OpenRouter's where it has the field (``GET /generation``), ours otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from backends.wire.openai_reply import usd
from gateway.exchange import Attempt, Exchange
from policies.charging import Outcome
from policies.types import Candidate

API_TYPES = {"openai": "completions"}
"""OpenRouter's names of the dialects, where ours differ."""


def generation_record(exchange: Exchange) -> bytes:
    """Return the record of a closed exchange as JSON."""
    assert exchange.bill is not None
    bill, view = exchange.bill, exchange.candidate.view if exchange.candidate else None
    end = exchange.ends[0] if exchange.ends else None
    usage = bill.usage
    record: dict[str, Any] = {
        "id": exchange.id,
        "request_id": exchange.request.request_id,
        "created_at": datetime.fromtimestamp(exchange.created_s, UTC).isoformat(),
        "model": view.model if view else exchange.plan_model,
        "provider_name": view.provider if view else None,
        "endpoint": view.id if view else None,
        "api_type": API_TYPES.get(exchange.dialect.name, exchange.dialect.name),
        "streamed": exchange.streamed,
        "cancelled": exchange.client_gone,
        "outcome": str(exchange.outcome),
        "error": exchange.error,
        "finish_reason": end.reason if end else None,
        "native_finish_reason": end.raw_reason if end else None,
        "latency": _ms(exchange.opened, exchange.content_at),
        "generation_time": _ms(exchange.content_at, exchange.finished_at),
        "tokens_prompt": usage.prompt_tokens,
        "tokens_completion": usage.completion_tokens,
        "native_tokens_prompt": usage.prompt_tokens,
        "native_tokens_completion": usage.completion_tokens,
        "native_tokens_reasoning": usage.reasoning_tokens,
        "native_tokens_cached": usage.cached_tokens,
        "tokens": exchange.meta.tokens,
        "total_cost": usd(bill.cost.charge_nanodollars),
        "usage": usd(bill.cost.charge_nanodollars),
        "upstream_inference_cost": usd(bill.cost.upstream_nanodollars),
        "charge_nanodollars": bill.cost.charge_nanodollars,
        "cost_picodollars": bill.cost_picodollars,
        "held_nanodollars": exchange.hold_nanodollars,
        "markup_bp": view.tariff.markup_bp if view else None,
        "price_version": view.tariff.price_version if view else None,
        "flags": exchange.meta.flags,
        "charged": exchange.outcome is not Outcome.FAILED,
        "is_byok": False,
        "account": exchange.caller.account,
        "key": exchange.caller.key_id,
        "provider_responses": [_attempt(attempt) for attempt in exchange.attempts],
        "plan": {
            "candidates": [_candidate(candidate) for candidate in exchange.plan.candidates],
            "rejections": [
                {"endpoint": entry.endpoint, "reason": entry.reason, "detail": entry.detail}
                for entry in exchange.plan.rejections
            ],
        },
        "dropped": list(exchange.candidate.dropped) if exchange.candidate else [],
    }
    return msgspec.json.encode(record)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "endpoint": attempt.endpoint,
        "provider_name": attempt.provider,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "latency": _ms(attempt.started, attempt.ended),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "endpoint": candidate.view.id,
        "hold_nanodollars": candidate.hold_nanodollars,
        "estimate_picodollars": candidate.estimate_picodollars,
    }


def _ms(start: float | None, end: float | None) -> int | None:
    return None if start is None or end is None else round((end - start) * 1000)
