"""Answers of upstreams with habits of their own, as the gateway's clients get them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.upstreams import Call, upstream
from tests.gateway_harness import Gateway, model, running, settings

pytestmark = pytest.mark.anyio

USAGE = {"prompt_tokens": 5, "completion_tokens": 4}


@asynccontextmanager
async def before(redis_url: str, *choices: Any, **more: Any) -> AsyncIterator[Gateway]:
    """Run a gateway before an upstream of the chat wire that sends these choices."""

    async def part(call: Call) -> None:
        await call.start()
        for choice in choices:
            await call.event({"choices": [choice]})
        await call.event({"choices": [], "usage": USAGE})
        await call.event("[DONE]")
        await call.end()

    async with upstream(part) as up:
        models = model(up.endpoint("acme", retries=0, **more), id="demo/fake")
        async with running(redis_url, settings(models)) as gateway:
            yield gateway


async def ask(gateway: Gateway, path: str, **body: Any) -> Any:
    """Return the answer of a dialect, whole, or its events."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    asked = {"model": "demo/fake"} | body
    answer = await gateway.client.post(f"/v1/{path}", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return answer.json()
    lines = answer.text.splitlines()  # these dialects name their events
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


async def test_nulls_and_loose_types_reach_no_client_as_an_error(redis_url: str) -> None:
    """Whole and streamed, in the middle of an answer."""
    choices = (
        {"index": 0, "delta": {"content": "a"}},
        {"index": None, "delta": {"content": "b", "tool_calls": {}, "reasoning": {"text": "hm"}}},
        {"index": "0", "delta": None, "finish_reason": "stop"},
    )
    async with before(redis_url, *choices) as gateway:
        whole = await gateway.chat()
        [choice] = whole.json()["choices"]
        assert (choice["message"]["content"], choice["message"]["reasoning"]) == ("ab", "hm")
        assert choice["finish_reason"] == "stop"
        streamed = await gateway.stream()
        assert streamed.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    "delta", ["wonderful ", {"tool_calls": "f(1)"}], ids=["a text", "calls in a text"]
)
async def test_an_answer_without_one_of_its_pieces_is_not_sold_as_whole(
    redis_url: str, delta: Any
) -> None:
    """What cannot be read ends it, with an error."""
    choices = (
        {"index": 0, "delta": {"content": "Hello "}},
        {"index": 0, "delta": delta},
        {"index": 0, "delta": {"content": "world"}, "finish_reason": "stop"},
    )
    async with before(redis_url, *choices) as gateway:
        whole = await gateway.chat()
        assert whole.status_code == 502
        streamed = await gateway.stream()
        assert "[DONE]" not in streamed.events
        assert "error" in streamed.events[-1]


async def test_log_probabilities_without_text_reach_the_client(redis_url: str) -> None:
    """Those of a character's first half, and those beside the finish reason."""
    tokens = [{"token": t, "logprob": -1.0, "bytes": [], "top_logprobs": []} for t in "abc"]
    choices = (
        {"index": 0, "delta": {"content": ""}, "logprobs": {"content": tokens[:1]}},
        {"index": 0, "delta": {"content": "é"}, "logprobs": {"content": tokens[1:2]}},
        {"index": 0, "delta": {}, "logprobs": {"content": tokens[2:]}, "finish_reason": "stop"},
    )
    async with before(redis_url, *choices) as gateway:
        whole = await gateway.chat(logprobs=True)
        assert whole.json()["choices"][0]["logprobs"]["content"] == tokens
        streamed = await gateway.stream(logprobs=True)
        found = [event["choices"][0]["logprobs"] for event in streamed.events[:-1]]
        assert [entry for one in found if one for entry in one["content"]] == tokens


async def test_one_choice_reaches_clients_whose_dialect_has_one(redis_url: str) -> None:
    """Whole and streamed alike; what else the upstream says is left out."""
    choices = [{"index": i % 2, "delta": {"content": t}} for i, t in enumerate("axbyczdw")]
    choices += [{"index": i, "delta": {}, "finish_reason": "stop"} for i in (0, 1)]
    async with before(redis_url, *choices) as gateway:
        asked: Any = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
        whole = await ask(gateway, "messages", **asked)
        assert [block["text"] for block in whole["content"]] == ["abcd"]
        events = await ask(gateway, "messages", stream=True, **asked)
        deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
        assert "".join(deltas) == "abcd"
        events = await ask(gateway, "responses", input="hi", stream=True)
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "abcd"


async def test_calls_and_reasoning_of_odd_servers_reach_the_client(redis_url: str) -> None:
    """Calls without ids at one position, reasoning under another name."""
    calls = [{"index": 0, "function": {"name": "f", "arguments": a}} for a in ('{"x":1}', "{}")]
    choices = (
        {"index": 0, "delta": {"reasoning_text": "hm"}},
        *({"index": 0, "delta": {"tool_calls": [call]}} for call in calls),
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
    )
    async with before(redis_url, *choices) as gateway:
        function = {"name": "f", "parameters": {"type": "object"}}
        whole = await gateway.chat(tools=[{"type": "function", "function": function}])
        message = whole.json()["choices"][0]["message"]
        assert message["reasoning"] == "hm"
        assert [call["function"]["arguments"] for call in message["tool_calls"]] == [
            '{"x":1}',
            "{}",
        ]
