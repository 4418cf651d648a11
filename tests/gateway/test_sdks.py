"""Official SDKs for chat, unmodified but for base URL and key: whole, streamed, with tools."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openrouter import OpenRouter
from openrouter.utils import RetryConfig

from tests.gateway.upstreams import assistant, upstream
from tests.gateway_harness import Gateway, model, running, settings

pytestmark = pytest.mark.anyio

TEXT = "Hello wörld"
CALL = ("get_weather", {"city": "Köln"})
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Says the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
GREETING: list[Any] = [{"role": "user", "content": "Say hello."}]
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather in Köln?"}]


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway before the assistant."""
    async with upstream(assistant) as serving:
        endpoint = serving.endpoint("acme", price={"prompt": "1", "completion": "2"})
        async with running(redis_url, settings(model(endpoint, id="acme/model"))) as gateway:
            yield gateway


async def test_openais_client_runs_a_tool_loop(gateway: Gateway) -> None:
    """A call, its result handed back, an answer; and the same in a stream."""
    async with gateway.openai() as client:
        first = await client.chat.completions.create(
            model="acme/model", messages=QUESTION, tools=TOOLS
        )
        [choice] = first.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls
        [call] = choice.message.tool_calls
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == CALL
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        second = await client.chat.completions.create(
            model="acme/model",
            messages=[*QUESTION, choice.message.model_dump(exclude_none=True), result],
            tools=TOOLS,
        )
        assert second.choices[0].message.content == TEXT
        async with client.chat.completions.stream(
            model="acme/model", messages=QUESTION, tools=TOOLS
        ) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.tool_calls
        streamed = final.choices[0].message.tool_calls[0].function
        assert (streamed.name, json.loads(streamed.arguments)) == CALL
        assert final.usage is not None
        assert final.usage.prompt_tokens == 11
    await gateway.audited()


async def test_openrouters_client_takes_whole_answers_and_streams(gateway: Gateway) -> None:
    """It checks every field against its schema."""
    async with OpenRouter(
        api_key=gateway.key,
        server_url=f"{gateway.base_url}/v1",
        retry_config=RetryConfig("none", None, False),
    ) as client:
        whole = await client.chat.send_async(model="acme/model", messages=GREETING)
        assert whole.choices[0].message.content == TEXT
        assert (whole.choices[0].finish_reason, whole.usage.prompt_tokens) == ("stop", 11)
        called = await client.chat.send_async(model="acme/model", messages=QUESTION, tools=TOOLS)
        [call] = called.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == CALL
        text, finish, usage = "", None, None
        async with await client.chat.send_async(
            model="acme/model", messages=GREETING, stream=True
        ) as chunks:
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
                usage = chunk.usage or usage
        assert (text, finish) == (TEXT, "stop")
        assert usage is not None
        assert usage.prompt_tokens == 11
    await gateway.audited()
