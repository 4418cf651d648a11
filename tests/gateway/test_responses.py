"""The Responses route, as OpenAI's and OpenRouter's own clients use it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import openrouter
import pytest
from openrouter import components, errors

from tests.gateway.upstreams import Call, Part, Upstream, answer, refusal, upstream
from tests.gateway_harness import Gateway, fake, model, running, settings

pytestmark = pytest.mark.anyio

USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TOOL: Any = {
    "type": "function",
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    "strict": False,
}
OWN = {"format": "openai-responses-v1", "id": "rs_1"}
SUMMARY = {"type": "reasoning.summary", "summary": "I should look.", "index": 0, **OWN}
SECRET = {"type": "reasoning.encrypted", "data": "c2VjcmV0", "index": 1, **OWN}


def saying(*deltas: dict[str, Any], reason: str = "stop") -> Part:
    """Answer with these deltas."""

    async def part(call: Call) -> None:
        await call.start()
        for delta in deltas:
            await call.event({"id": "up", "choices": [{"index": 0, "delta": delta}]})
        await call.finish(reason, USAGE)
        await call.end()

    return part


def piece(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    """A delta with a piece of a call."""
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name:
        call |= {"id": f"call_{index}", "function": {"name": name, "arguments": arguments}}
    return {"tool_calls": [call]}


CALLS = saying(
    {"reasoning": "I should look.", "reasoning_details": [SUMMARY]},
    {"reasoning_details": [SECRET]},
    {"content": "One moment."},
    piece(0, '{"word":', "look_up"),
    piece(1, "", "look_up"),
    piece(0, '"toll"}'),
    piece(1, '{"word":"way"}'),
    reason="tool_calls",
)


@asynccontextmanager
async def serving(redis_url: str, *parts: Part) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """A worker before an upstream that speaks chat."""
    async with upstream(*parts) as actor:
        given = settings(model(actor.endpoint("acme", retries=0), id="m"))
        async with running(redis_url, given) as gateway:
            yield gateway, actor


async def post(gateway: Gateway, **body: Any) -> Any:
    """Post a request as it is."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    return await gateway.client.post("/v1/responses", json=body, headers=headers)


async def test_openais_client_reads_a_whole_answer(redis_url: str) -> None:
    """Text, usage, status, and the cost beside it."""
    async with (
        serving(redis_url, answer(("Hello ", "there."), usage=USAGE)) as (gateway, actor),
        gateway.openai() as client,
    ):
        response = await client.responses.create(
            model="m", input="hi", instructions="Be brief.", max_output_tokens=20, store=False
        )
        assert (response.output_text, response.status) == ("Hello there.", "completed")
        assert response.id.startswith("gen-")
        usage = response.usage
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 5, 12)
        assert usage.input_tokens_details.cached_tokens == 2
        assert usage.output_tokens_details.reasoning_tokens == 1
        assert usage.to_dict()["cost"] == pytest.approx(17e-6)
        (call,) = actor.calls
        assert call.body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ]
        assert call.body["max_tokens"] == 20
        assert (await gateway.audited()).spent_nanodollars == 17_000


async def test_openais_client_streams_calls_and_hands_everything_back(redis_url: str) -> None:
    """Parallel calls in order; the second turn is the first one's output and the results."""
    async with (
        serving(redis_url, CALLS, answer(("A road.",), usage=USAGE)) as (gateway, actor),
        gateway.openai() as client,
        client.responses.stream(model="m", input="Look up.", tools=[TOOL]) as stream,
    ):
        kinds = [event.type async for event in stream]
        first = await stream.get_final_response()
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds.count("response.output_item.done") == 4
        assert kinds[-1] == "response.completed"
        items = first.output
        assert [item.type for item in items] == [
            "reasoning",
            "message",
            "function_call",
            "function_call",
        ]
        calls = [item for item in items if item.type == "function_call"]
        assert [json.loads(call.arguments)["word"] for call in calls] == ["toll", "way"]
        results = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "found"}
            for call in calls
        ]
        history: Any = [
            {"role": "user", "content": "Look up."},
            *(item.to_dict() for item in items),
            *results,
        ]
        second = await client.responses.create(model="m", input=history, tools=[TOOL])
        assert second.output_text == "A road."
        _, assistant, *told = actor.calls[1].body["messages"]
        assert assistant["content"] == "One moment."
        assert assistant["reasoning_details"] == [SUMMARY, SECRET]
        assert [call["id"] for call in assistant["tool_calls"]] == ["call_0", "call_1"]
        assert [message["tool_call_id"] for message in told] == ["call_0", "call_1"]
        assert actor.calls[0].body["tools"][0]["function"]["name"] == "look_up"
        _ = await gateway.audited()


async def test_a_cut_answer_is_incomplete(redis_url: str) -> None:
    """With the reason, whole and streamed."""
    async with (
        serving(redis_url, answer(("a", "b"), reason="length")) as (gateway, _),
        gateway.openai() as client,
    ):
        whole = await client.responses.create(model="m", input="hi")
        assert whole.status == "incomplete"
        assert whole.incomplete_details is not None
        assert whole.incomplete_details.reason == "max_output_tokens"
        stream = await client.responses.create(model="m", input="hi", stream=True)
        events = [event async for event in stream]
        assert events[-1].type == "response.incomplete"


async def test_a_late_failure_is_response_failed_with_an_error_beside_it(redis_url: str) -> None:
    """OpenAI's client raises for the one beside it; what was said before is kept, and billed."""
    given = settings(model(fake(tokens=9, fail={"how": "cut", "after_tokens": 3}), id="m"))
    async with running(redis_url, given) as gateway, gateway.openai() as client:
        reply = await post(gateway, model="m", input="hi", stream=True)
        blocks = reply.text.strip().split("\n\n")
        assert blocks[-1].startswith("event: response.failed\n")
        last = json.loads(blocks[-1].partition("data: ")[2])
        assert last["error"]["metadata"]["error_type"] == "provider_unavailable"
        assert last["response"]["error"]["message"] == last["error"]["message"]
        assert last["response"]["usage"]["output_tokens"] == 3
        (message,) = last["response"]["output"]
        assert message["status"] == "incomplete"
        stream = await client.responses.create(model="m", input="hi", stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            _ = [event async for event in stream]
        _ = await gateway.audited()


async def test_errors_before_an_answer_have_openais_shape(redis_url: str) -> None:
    """With the field that is wrong; what would need a store says so."""
    async with (
        serving(redis_url, refusal(400, "bad", "said no")) as (gateway, _),
        gateway.openai() as client,
    ):
        with pytest.raises(openai.BadRequestError) as stored:
            _ = await client.responses.create(model="m", input="hi", store=True)
        assert stored.value.param == "store"
        with pytest.raises(openai.BadRequestError) as tool:
            _ = await client.responses.create(model="m", input="hi", tools=[{"type": "web_search"}])
        assert tool.value.param == "tools[0].type"
        with pytest.raises(openai.BadRequestError, match="said no"):
            _ = await client.responses.create(model="m", input="hi")
        with pytest.raises(openai.BadRequestError, match="truncation") as wire:
            _ = await client.responses.create(model="x", input="hi", truncation="sometimes")  # type: ignore[call-overload]
        assert wire.value.param == "truncation"
        with pytest.raises(openai.NotFoundError, match="not stored"):
            _ = await client.responses.retrieve("resp_1")
        with pytest.raises(openai.NotFoundError, match="not stored"):
            await client.responses.delete("resp_1")
        with pytest.raises(openai.AuthenticationError):
            async with gateway.openai("tw_wrong") as stranger:
                _ = await stranger.responses.create(model="m", input="hi")
        assert (await gateway.audited()).spent_nanodollars == 0


async def test_openrouters_client_reads_whole_and_streamed_answers(redis_url: str) -> None:
    """It validates every field of every event."""
    async with serving(redis_url, CALLS, CALLS, refusal(400)) as (gateway, _):
        base = gateway.base_url + "/api/v1"
        tool = components.ResponsesRequestToolFunction.model_validate(TOOL)
        async with openrouter.OpenRouter(api_key=gateway.key, server_url=base) as client:
            whole = await client.responses.send_async(model="m", input="hi", tools=[tool])
            assert isinstance(whole, components.OpenResponsesResult)
            assert len(whole.output) == 4
            assert whole.usage
            assert whole.usage.cost == pytest.approx(17e-6)
            stream = await client.responses.send_async(
                model="m", input="hi", tools=[tool], stream=True
            )
            events = [event async for event in stream]
            assert not any(getattr(event, "is_unknown", False) for event in events)
            last = events[-1]
            assert isinstance(last, components.StreamEventsResponseCompleted)
            assert len(last.response.output) == 4
            with pytest.raises(errors.BadRequestResponseError, match="said no"):
                _ = await client.responses.send_async(model="m", input="hi")
        _ = await gateway.audited()


async def test_empty_tools_do_not_reach_an_upstream_that_refuses_them(redis_url: str) -> None:
    """Nor what stands beside them and says nothing: OpenAI's own chat refuses all of it."""
    async with serving(redis_url, answer(("Hi.",), usage=USAGE)) as (gateway, actor):
        empty = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
        assert (await post(gateway, model="m", input="hi", **empty)).status_code == 200
        assert (await gateway.chat(model="m", **empty)).status_code == 200
        assert [call.body.keys() & empty.keys() for call in actor.calls] == [set(), set()]


def told(place: int, item: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """An upstream's events for one item: begun without its content, told, and told whole."""
    where = {"output_index": place}
    begun = {**item, "status": "in_progress"} | {k: [] for k in ("content",) if k in item}
    return [
        {"type": "response.output_item.added", **where, "item": begun},
        *({**delta, **where, "item_id": item["id"]} for delta in deltas),
        {"type": "response.output_item.done", **where, "item": item},
    ]


def completed(*items: list[dict[str, Any]]) -> Part:
    """Answer on the wire of Responses with these items."""
    whole = [events[-1]["item"] for events in items]
    usage = {"input_tokens": 7, "output_tokens": 9}
    response = {"id": "resp_1", "status": "completed", "output": whole, "usage": usage}

    async def part(call: Call) -> None:
        await call.start()
        for event in (event for events in items for event in events):
            await call.event(event)
        await call.event({"type": "response.completed", "response": response})
        await call.end()

    return part


def message(place: int, phase: str, *pieces: str) -> list[dict[str, Any]]:
    """An upstream's message."""
    parts = [{"type": "output_text", "text": "".join(pieces), "annotations": [], "logprobs": []}]
    item = {"id": f"msg_{place}", "type": "message", "role": "assistant", "status": "completed"}
    deltas = [
        {"type": "response.output_text.delta", "content_index": 0, "delta": piece}
        for piece in pieces
    ]
    return told(place, {**item, "phase": phase, "content": parts}, *deltas)


@asynccontextmanager
async def same_wire(redis_url: str, *parts: Part) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """A worker before an upstream that speaks Responses."""
    async with upstream(*parts) as actor:
        endpoint = actor.endpoint("acme", backend="openai", api="responses", retries=0)
        async with running(redis_url, settings(model(endpoint, id="m"))) as gateway:
            yield gateway, actor


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_phase_of_a_message_comes_and_goes_back(redis_url: str, streamed: bool) -> None:
    """Two messages stay two; what an SDK hands back reaches the upstream with its phase."""
    said = completed(message(0, "commentary", "I ", "look."), message(1, "final_answer", "Here."))
    async with same_wire(redis_url, said) as (gateway, actor), gateway.openai() as client:
        asked: Any = {"model": "m", "input": [{"role": "user", "content": "hi"}]}
        if streamed:
            events: Any = [e async for e in await client.responses.create(**asked, stream=True)]
            first = events[-1].response
            begun = [e.item for e in events if e.type == "response.output_item.added"]
            assert [item.phase for item in begun] == ["commentary", "final_answer"]
        else:
            first = await client.responses.create(**asked)
        assert [(item.phase, item.content[0].text) for item in first.output] == [
            ("commentary", "I look."),
            ("final_answer", "Here."),
        ]
        history: Any = [*asked["input"], *(item.to_dict() for item in first.output)]
        await client.responses.create(model="m", input=history)
        sent = actor.calls[1].body["input"][1:]
        assert [(item["phase"], item["content"][0]["text"]) for item in sent] == [
            ("commentary", "I look."),
            ("final_answer", "Here."),
        ]
        reply = (await gateway.chat(model="m")).json()
        assert reply["choices"][0]["message"]["content"] == "I look.Here."
        _ = await gateway.audited()
