"""``POST /v1/messages`` with Anthropic's own client, against a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import pytest

from tests import anthropic_wire as wire
from tests.gateway.upstreams import Call, Part, answer, refusal, upstream
from tests.gateway_harness import Gateway, fake, model, running, settings

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "How is the weather?"}],
}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


def sends(*events: bytes) -> Part:
    """Return a part that answers with these events."""

    async def part(call: Call) -> None:
        await call.start()
        for event in events:
            await call.chunk(event)
        await call.end()

    return part


@asynccontextmanager
async def asking(
    redis_url: str, *parts: Part, backend: str = "openai"
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Gateway, list[Call]]]:
    """Give Anthropic's client a gateway before an upstream of a wire."""
    async with upstream(*parts) as actor:
        endpoint = actor.endpoint("up", backend=backend, retries=0)
        async with (
            running(redis_url, settings(model(endpoint, id="m"))) as gateway,
            client_of(gateway) as client,
        ):
            yield client, gateway, actor.calls


def client_of(gateway: Gateway, key: str | None = None) -> anthropic.AsyncAnthropic:
    """Anthropic's own client, which never retries; use it with ``async with``."""
    return anthropic.AsyncAnthropic(
        base_url=gateway.base_url, api_key=key or gateway.key, max_retries=0
    )


def chat_call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    """Return a chunk of OpenAI's wire with a piece of a call."""
    function = {"arguments": arguments} | {k: v for k, v in more.items() if k == "name"}
    call = {"index": index, "function": function} | {k: v for k, v in more.items() if k == "id"}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


async def calls(call: Call) -> None:
    """Speak, then make two calls whose pieces interleave."""
    await call.start()
    await call.word("Both: ")
    await call.event(chat_call(0, '{"city":', id="c0", name="weather"))
    await call.event(chat_call(1, "", id="c1", name="weather"))
    await call.event(chat_call(0, '"Ulm"}'))
    await call.finish("tool_calls", {"prompt_tokens": 30, "completion_tokens": 9})
    await call.end()


async def test_a_whole_message(redis_url: str) -> None:
    """Text, model, stop reason, count and cost, from an upstream of another wire."""
    async with asking(redis_url, answer(["Sunny ", "today."])) as (client, gateway, asked):
        message = await client.messages.create(**ASKED, system="Be terse.")
        assert [block.to_dict() for block in message.content] == [
            {"type": "text", "text": "Sunny today."}
        ]
        assert (message.model, message.stop_reason) == ("m", "end_turn")
        assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 2)
        assert message.usage.to_dict()["cost"] == 0.000011
        assert message.to_dict()["provider"] == "up"
        assert asked[0].body["messages"] == [
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "How is the weather?"},
        ]
        balance = await gateway.audited()
        assert balance.spent_nanodollars == 11_000


async def test_a_streamed_message(redis_url: str) -> None:
    """The client's own accumulator finds the same; the start has usage already."""
    async with asking(redis_url, answer(["Sunny ", "today."])) as (client, _, _):
        async with client.messages.stream(**ASKED) as stream:
            pieces = [piece async for piece in stream.text_stream]
            message = await stream.get_final_message()
        assert pieces == ["Sunny ", "today."]
        assert message.stop_reason == "end_turn"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 2)
        events = [e async for e in await client.messages.create(**ASKED, stream=True)]
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]


@pytest.mark.parametrize("streamed", [True, False])
async def test_parallel_calls(redis_url: str, streamed: bool) -> None:
    """Each whole and in order, one without arguments as an empty object."""
    async with asking(redis_url, calls) as (client, _, asked):
        choice: Any = {"type": "any", "disable_parallel_tool_use": True}
        more: Any = {"tools": [TOOL], "tool_choice": choice}
        if streamed:
            async with client.messages.stream(**ASKED, **more) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**ASKED, **more)
        assert message.stop_reason == "tool_use"
        text, *uses = (block.to_dict() for block in message.content)
        assert text == {"type": "text", "text": "Both: "}
        assert [(use["id"], use["input"]) for use in uses] == [("c0", {"city": "Ulm"}), ("c1", {})]
        body = asked[0].body
        assert body["tools"][0]["function"]["name"] == "weather"
        assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)


async def test_results_of_tools_go_on_as_messages(redis_url: str) -> None:
    """The second turn of a tool's use, for an upstream of another wire."""
    turns: Any = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c0", "name": "weather", "input": {"a": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "sunny"}],
        },
    ]
    async with asking(redis_url, answer(["ok"])) as (client, _, asked):
        await client.messages.create(**ASKED | {"messages": turns}, tools=[TOOL])
        assert asked[0].body["messages"][2] == {
            "role": "tool",
            "tool_call_id": "c0",
            "content": "sunny",
        }


def thinks(index: int, thought: str, signature: str) -> list[bytes]:
    """Return a block of signed thinking."""
    return wire.block(
        index,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": thought},
        {"type": "signature_delta", "signature": signature},
    )


REASONED = [
    wire.start({"input_tokens": 5, "cache_read_input_tokens": 20, "output_tokens": 1}),
    *thinks(0, "hm", "sig"),
    *wire.block(1, {"type": "redacted_thinking", "data": "enc"}),
    *wire.text(2, "Sunny."),
    *wire.tool_use(3, "weather", '{"city": "Ulm"}'),
    *wire.end("tool_use", {"output_tokens": 6}),
]


@pytest.mark.parametrize("streamed", [True, False])
async def test_anthropic_to_anthropic_loses_nothing(redis_url: str, streamed: bool) -> None:
    """Reasoning with its signature, cached tokens apart; handed back unchanged next time."""
    parts = (sends(*REASONED),)
    async with asking(redis_url, *parts, backend="anthropic") as (client, _, asked):
        thinking: Any = {"type": "enabled", "budget_tokens": 1024}
        more: Any = {"thinking": thinking, "tools": [TOOL], "metadata": {"user_id": "u"}}
        if streamed:
            async with client.messages.stream(**ASKED, **more) as stream:
                message = await stream.get_final_message()
        else:
            message = await client.messages.create(**ASKED, **more)
        content = [block.to_dict() for block in message.content]
        assert content == [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "redacted_thinking", "data": "enc"},
            {"type": "text", "text": "Sunny."},
            {
                "type": "tool_use",
                "id": "toolu_3",
                "name": "weather",
                "input": {"city": "Ulm"},
            },
        ]
        usage = message.usage
        assert (usage.input_tokens, usage.output_tokens) == (5, 6)
        assert usage.cache_read_input_tokens == 20
        assert asked[0].headers["anthropic-version"] == "2023-06-01"
        wanted = {"stream": True, "model": "up-model", "thinking": thinking, "tools": [TOOL]}
        assert asked[0].body == ASKED | wanted
        turn: Any = {"role": "assistant", "content": content}
        result = {"type": "tool_result", "tool_use_id": "toolu_3", "content": "ok"}
        turns = [*ASKED["messages"], turn, {"role": "user", "content": [result]}]
        await client.messages.create(**ASKED | {"messages": turns}, tools=[TOOL])
        assert asked[1].body["messages"][1] == turn


INTERLEAVED = (
    wire.start({"input_tokens": 5, "output_tokens": 1}),
    *thinks(0, "First", "s0"),
    *wire.text(1, "I ", "look."),
    *wire.tool_use(2, "weather", "{}"),
    *thinks(3, "Second", "s3"),
    *wire.text(4, "And there."),
    *wire.tool_use(5, "weather", "{}"),
    *wire.end("tool_use", {"input_tokens": 5, "output_tokens": 40}),
)


async def test_thinking_between_calls_stays_there_in_a_whole_message(redis_url: str) -> None:
    """Block by block what the SDK puts together of the stream; the next turn has them so."""
    async with asking(redis_url, sends(*INTERLEAVED), backend="anthropic") as (client, _, asked):
        async with client.messages.stream(**ASKED, tools=[TOOL]) as stream:
            streamed = await stream.get_final_message()
        whole = await client.messages.create(**ASKED, tools=[TOOL])
        content: Any = [block.to_dict() for block in whole.content]
        assert content == [block.to_dict() for block in streamed.content]
        assert [block["type"] for block in content] == ["thinking", "text", "tool_use"] * 2
        assert [block.get("signature") for block in content[::3]] == ["s0", "s3"]
        turn: Any = {"role": "assistant", "content": content}
        results: Any = [
            {"type": "tool_result", "tool_use_id": f"toolu_{place}", "content": "ok"}
            for place in (2, 5)
        ]
        turns = [*ASKED["messages"], turn, {"role": "user", "content": results}]
        await client.messages.create(**ASKED | {"messages": turns}, tools=[TOOL])
        assert asked[2].body["messages"][1] == turn


async def test_a_whole_response_has_the_items_of_its_stream(redis_url: str) -> None:
    """Thinking, text and calls in turns, for a client of OpenAI's Responses."""
    async with asking(redis_url, sends(*INTERLEAVED), backend="anthropic") as (_, gateway, _):
        async with gateway.openai() as client:
            asked: Any = {"model": "m", "input": "hi"}
            events: Any = [e async for e in await client.responses.create(**asked, stream=True)]
            whole = await client.responses.create(**asked)
        kinds = [item.type for item in whole.output]
        assert kinds == ["reasoning", "message", "function_call"] * 2
        told, said = (
            [item.to_dict() | {"id": None} for item in response.output]
            for response in (whole, events[-1].response)
        )
        assert told == said


async def test_a_chat_client_reaches_an_anthropic_upstream(redis_url: str) -> None:
    """The other way round: one stream, whichever answered."""
    parts = (sends(*REASONED),)
    async with asking(redis_url, *parts, backend="anthropic") as (_, gateway, asked):
        reply = (await gateway.chat(model="m")).json()
        message = reply["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == ("Sunny.", "hm")
        assert message["reasoning_details"][0]["signature"] == "sig"
        assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "Ulm"}'
        assert reply["usage"]["prompt_tokens"] == 25
        assert asked[0].body["max_tokens"] == 16_384


async def test_both_ways_to_send_a_key_work(redis_url: str) -> None:
    """``x-api-key`` and a bearer token; a wrong one is Anthropic's error."""
    async with running(redis_url, settings(model(fake(tokens=3), id="m"))) as gateway:
        async with anthropic.AsyncAnthropic(
            base_url=gateway.base_url + "/api", auth_token=gateway.key, max_retries=0
        ) as client:
            assert (await client.messages.create(**ASKED)).stop_reason == "end_turn"
        async with client_of(gateway, "tw_wrong") as client:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await client.messages.create(**ASKED)
        body: Any = caught.value.body
        assert body["type"] == "error"
        assert body["error"]["type"] == "authentication_error"
        assert body["error"]["error_type"] == "authentication"


async def test_errors_before_an_answer_have_anthropics_shape(redis_url: str) -> None:
    """A wrong field, and an upstream that is full."""
    async with asking(redis_url, refusal(429)) as (client, _, _):
        with pytest.raises(anthropic.BadRequestError, match="temperature"):
            await client.messages.create(**ASKED, extra_body={"temperature": 3})
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**ASKED)
        body: Any = caught.value.body
        assert body["error"]["type"] == "rate_limit_error"
        assert body["error"]["metadata"]["provider_name"] == "up"


async def test_an_error_after_content_ends_the_stream(redis_url: str) -> None:
    """The client raises after it has got the text; no ``message_stop`` follows."""

    async def broken(call: Call) -> None:
        await call.start()
        await call.word("Half")
        await call.event({"error": {"message": "sorry", "code": 503}, "choices": []})
        await call.end()

    async with asking(redis_url, broken) as (client, gateway, _):
        pieces: list[str] = []

        async def listen() -> None:
            async with client.messages.stream(**ASKED) as stream:
                async for piece in stream.text_stream:
                    pieces.append(piece)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(anthropic.APIStatusError, match="sorry"):
            await listen()
        assert pieces == ["Half"]
        reply = await gateway.client.post(
            "/v1/messages",
            json=ASKED | {"stream": True},
            headers={"x-api-key": gateway.key},
        )
        *_, last, rest = reply.content.split(b"\n\n")
        assert last.startswith(b"event: error\n")
        assert b'"overloaded_error"' in last
        assert b'"cost"' in last
        assert rest == b""


async def test_tokens_are_counted_by_an_estimate_that_says_so(redis_url: str) -> None:
    """A quarter of the bytes of texts and tools; nothing is charged, a key is needed."""
    async with asking(redis_url, answer(["ok"])) as (client, gateway, asked):
        body = {k: v for k, v in ASKED.items() if k != "max_tokens"}
        raw = await client.messages.with_raw_response.count_tokens(**body)
        assert (await raw.parse()).input_tokens == len("How is the weather?") // 4
        assert raw.headers["x-tollway-estimate"] == "true"
        more = await client.messages.count_tokens(**body, tools=[TOOL])
        assert more.input_tokens > 20
        reply = await gateway.client.post("/v1/messages/count_tokens", json=body)
        assert reply.status_code == 401
        assert reply.json()["error"]["type"] == "authentication_error"
        assert asked == []
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_a_tools_failure_is_told_to_chat_in_the_words_that_it_has(redis_url: str) -> None:
    """``is_error`` is a word of this dialect, and strict upstreams of chat refuse it."""
    tool = {"name": "f", "input_schema": {"type": "object"}}
    use = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    failed = {"type": "tool_result", "tool_use_id": "a", "content": "no", "is_error": True}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [failed]},
    ]
    async with upstream(answer(("Well.",))) as actor:
        given = settings(model(actor.endpoint("acme", retries=0), id="m"))
        async with running(redis_url, given) as gateway:
            body = {"model": "m", "max_tokens": 9, "messages": turns, "tools": [tool]}
            headers = {"x-api-key": gateway.key}
            reply = await gateway.client.post("/v1/messages", json=body, headers=headers)
            assert reply.status_code == 200
            result = actor.calls[0].body["messages"][-1]
            assert result == {"role": "tool", "tool_call_id": "a", "content": "no"}
