"""OpenRouter: its price, its reasoning both ways, its comments and errors."""

from __future__ import annotations

from typing import Any

import pytest

import backends
from backends.base import Backend, BackendConfig
from backends.errors import RateLimited
from backends.openrouter import build
from backends.types import Finish, ReasoningDelta, TextDelta, Usage
from tests.contracts.backend_contract import OpenAIWireContract, everything, into, replace_request
from tests.upstream import (
    DONE,
    Upstream,
    answer,
    choice,
    chunk,
    data,
    delta,
    serving,
    streams,
    usage,
)

pytestmark = pytest.mark.anyio

DETAILS = [{"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"}]


def config(base_url: str, model: str = "up-model") -> BackendConfig:
    """Return the settings of an endpoint."""
    return BackendConfig("openrouter", model, base_url, api_keys=(lambda: "or-key",))


class TestOpenRouter(OpenAIWireContract):
    """The wire that ours is."""

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url))


async def ask(*body: bytes, **changes: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return the events of an answer, and the body that was sent."""
    async with serving(streams(*body)) as upstream:
        backend = build(config(upstream.base_url))
        events: list[Any] = await everything(backend, replace_request(**changes))
        await backend.aclose()
    sent: dict[str, Any] = upstream.requests[0].json()
    return events, sent


async def test_what_it_charged_is_the_upstreams_cost() -> None:
    """Exact in the books, and in dollars among what only this vendor says."""
    told = usage(7, 1, cost=0.00042, cost_details={"upstream_inference_cost": 0.0004})
    events, sent = await ask(
        b": OPENROUTER PROCESSING\n\n",
        data(delta("a")),
        data(chunk({**choice(0, "stop"), "native_finish_reason": "STOP"}, usage=told)),
        DONE,
    )
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert finish.extras is not None
    assert finish.extras["cost_usd"] == 0.00042
    assert finish.usage == Usage(7, 1, cost_picodollars=420_000_000)
    assert finish.choices[0].raw_reason == "STOP"
    assert sent["usage"] == {"include": True}


async def test_reasoning_details_come_and_go_back_unchanged() -> None:
    """The signed parts of a turn are sent with the next one."""
    piece = choice(reasoning="hm", reasoning_details=DETAILS)
    before = {"role": "assistant", "content": "a", "reasoning_details": DETAILS}
    events, sent = await ask(data(chunk(piece)), *answer("a"), messages=(before,))
    assert ReasoningDelta(0, "hm", DETAILS) in events
    assert sent["messages"] == [before]


async def test_an_error_within_a_chunk_of_choices_ends_the_answer() -> None:
    """Error, choices and usage in one chunk; the text before it is kept."""
    report = chunk(choice(content=""), usage=usage(7, 1), error={"code": 429, "message": "slow"})
    events: list[Any] = []
    async with serving(streams(data(delta("a")), data(report), DONE)) as upstream:
        backend = build(config(upstream.base_url))
        with pytest.raises(RateLimited, match="slow"):
            await into(events, backend)
        await backend.aclose()
    assert TextDelta(0, "a") in events


def test_its_address_is_known() -> None:
    """Only the model has to be named."""
    backends.check(config(""))
    with pytest.raises(ValueError, match="model"):
        backends.check(config("", model=""))
