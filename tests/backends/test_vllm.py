"""vLLM: counts before and within an answer, and prefixes that accounts do not share."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Backend, BackendConfig, Counting
from backends.errors import BackendError
from backends.types import ChatRequest, ProviderPreferences, UsageUpdate
from backends.vllm import build
from tests.contracts.backend_contract import OpenAIWireContract, everything, replace_request
from tests.upstream import (
    Exchange,
    Script,
    Upstream,
    answer,
    data,
    delta,
    replies,
    serving,
    streams,
    usage,
)

pytestmark = pytest.mark.anyio


def config(base_url: str, **options: Any) -> BackendConfig:
    """Return the settings of an endpoint."""
    keys = (lambda: "vllm-key",)
    return BackendConfig("vllm", "up-model", base_url, api_keys=keys, options=options)


class TestVLLM(OpenAIWireContract):
    """A server of one's own."""

    def build(self, upstream: Upstream) -> Backend:
        """Point it at the server."""
        return build(config(upstream.base_url))


async def salt(account: str) -> str:
    """Return the salt of an account's prefixes."""
    async with serving(streams(*answer("ok"))) as upstream:
        backend = build(config(upstream.base_url))
        await everything(backend, replace_request(account=account))
        await backend.aclose()
    return str(upstream.requests[0].json()["cache_salt"])


async def test_accounts_do_not_share_prefixes_and_are_not_named() -> None:
    """The salt is the same for one account, another for others, and no name is in it."""
    one, again, other = [await salt(account) for account in ("acme", "acme", "corp")]
    assert one == again != other
    assert "acme" not in one


async def test_the_running_count_is_asked_for_and_read() -> None:
    """What a cut answer delivered is then known exactly."""
    body = data(delta("a", usage=usage(7, 1))), *answer("b")
    async with serving(streams(*body)) as upstream:
        backend = build(config(upstream.base_url))
        events = await everything(backend)
        await backend.aclose()
    assert UsageUpdate(7, 1) in events
    assert upstream.requests[0].json()["stream_options"]["continuous_usage_stats"] is True


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
COUNTS = replies(200, {"count": 31, "max_model_len": 64, "tokens": [1] * 31, "token_strs": None})


async def counted(
    request: ChatRequest, script: Script = COUNTS, **options: Any
) -> tuple[int | None, Upstream]:
    """Return what an endpoint says of a request, and whom it asked."""
    async with serving(script) as upstream:
        config = BackendConfig(
            "vllm",
            "up-model",
            upstream.base_url,
            api_keys=(lambda: "vllm-key",),
            options_key="mine",
            options=options,
        )
        backend = build(config)
        assert isinstance(backend, Counting)
        try:
            return await backend.count(request), upstream
        finally:
            await backend.aclose()


async def test_the_server_counts_a_conversation_as_it_would_be_sent() -> None:
    """Messages and tools, beside the API, with the endpoint's key; nothing else of the request."""
    params = {"tools": [TOOL], "temperature": 0.5, "tool_choice": "auto"}
    count, upstream = await counted(replace_request(params=params))
    assert count == 31
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", "/tokenize")
    assert request.headers["authorization"] == "Bearer vllm-key"
    assert request.json() == {
        "model": "up-model",
        "messages": [{"role": "user", "content": "Grüß Gott"}],
        "tools": [TOOL],
        "add_generation_prompt": True,
    }


async def test_the_server_counts_a_prompt() -> None:
    """Where the endpoint continues prompts."""
    count, upstream = await counted(replace_request(), api="completions")
    assert count == 31
    assert upstream.requests[0].json() == {"model": "up-model", "prompt": "Grüß Gott"}


async def test_what_a_caller_says_to_the_template_is_said_to_the_count() -> None:
    """It changes the prompt."""
    own = {"chat_template_kwargs": {"enable_thinking": False}, "add_generation_prompt": False}
    options = ProviderPreferences(options={"mine": own, "others": {"top": 1}})
    count, upstream = await counted(replace_request(provider=options))
    assert count == 31
    body = upstream.requests[0].json()
    assert {name: body[name] for name in own} == own


PROMPTS = {"operation": "completions", "messages": (), "inputs": ("one", "two")}


@pytest.mark.parametrize(
    ("changes", "api"),
    [
        ({"provider": ProviderPreferences(options={"mine": {"truncate_prompt_tokens": 9}})}, None),
        ({"params": {"tools": [TOOL], "tool_choice": "none"}}, None),
        ({"operation": "embeddings", "inputs": ("one",)}, None),
        (PROMPTS, "completions"),
        ({}, "responses"),
    ],
)
async def test_nothing_is_asked_where_the_count_would_be_of_another_prompt(
    changes: dict[str, Any], api: str | None
) -> None:
    """Fields that the server's count does not know, and what is not one prompt."""
    count, upstream = await counted(replace_request(**changes), **({"api": api} if api else {}))
    assert count is None
    assert upstream.requests == []


async def breaks_off(exchange: Exchange) -> None:
    """Say half of a count."""
    await exchange.head(200, {"Content-Length": "100"}, chunked=False)
    await exchange.raw(b'{"count": 3')
    exchange.cut()


@pytest.mark.parametrize(
    "script",
    [
        replies(404, {"detail": "Not Found"}),
        replies(500),
        replies(200, b"<html>"),
        replies(200, {"tokens": [1, 2]}),
        replies(200, {"count": 0}),
        replies(200, {"count": "31"}),
        breaks_off,
    ],
)
async def test_what_is_no_count_is_an_error(script: Script) -> None:
    """Of the upstream, like any other; who asks goes on without."""
    with pytest.raises(BackendError):
        await counted(replace_request(), script)
