"""Custom tools through the running gateway: both of OpenAI's dialects over both of its wires."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.gateway.upstreams import Call, Part, answer, upstream
from tests.gateway_harness import model, running, settings

pytestmark = pytest.mark.anyio

TEXT = "*** Begin Patch\n+ü\n"
FLAT: Any = {"type": "custom", "name": "patch", "format": {"type": "text"}}
NESTED: Any = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 9}


async def chat_calls(call: Call) -> None:
    """Call the tool, as OpenAI's chat streams it."""
    await call.start()
    first = {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "patch", "input": ""}}
    for piece in (
        first,
        *({"index": 0, "custom": {"input": text}} for text in (TEXT[:4], TEXT[4:])),
    ):
        await call.event({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
    await call.finish("tool_calls", USAGE)
    await call.end()


async def responses_calls(call: Call) -> None:
    """Call the tool, as OpenAI's Responses stream it."""
    await call.start()
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "patch"}
    where = {"output_index": 0, "item_id": "ctc_1"}
    done = {**item, "input": TEXT, "status": "completed"}
    kind = "response.custom_tool_call_input"
    usage = {"input_tokens": 7, "output_tokens": 9}
    whole = {"id": "r", "status": "completed", "output": [done], "usage": usage}
    for event in (
        {"type": "response.output_item.added", **where, "item": {**item, "input": ""}},
        {"type": f"{kind}.delta", **where, "delta": TEXT[:4]},
        {"type": f"{kind}.delta", **where, "delta": TEXT[4:]},
        {"type": f"{kind}.done", **where, "input": TEXT},
        {"type": "response.output_item.done", **where, "item": done},
        {"type": "response.completed", "response": whole},
    ):
        await call.event(event)
    await call.end()


WIRES: dict[str, Part] = {"chat": chat_calls, "responses": responses_calls}


async def asked_in_chat(client: openai.AsyncOpenAI, *, streamed: bool) -> tuple[str, str, str]:
    """Ask, read the call, and hand it back with its result."""
    turns: Any = [{"role": "user", "content": "hi"}]
    asked: Any = {"model": "m", "tools": [NESTED], "tool_choice": "required"}
    if streamed:
        call: Any = {"custom": {"name": "", "input": ""}}
        reason = None
        async for chunk in await client.chat.completions.create(
            messages=turns, stream=True, **asked
        ):
            choice = chunk.to_dict()["choices"][0]  # type: ignore[index]
            reason = choice["finish_reason"] or reason
            for piece in choice["delta"].get("tool_calls", ()):
                call |= {name: piece[name] for name in ("id", "type") if name in piece}
                for name, text in piece["custom"].items():
                    call["custom"][name] += text
    else:
        whole = await client.chat.completions.create(messages=turns, **asked)
        message = whole.choices[0].message
        assert message.tool_calls is not None
        call, reason = message.tool_calls[0].to_dict(), whole.choices[0].finish_reason
    assert reason == "tool_calls"
    assert call["type"] == "custom"
    turns += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "done"},
    ]
    await client.chat.completions.create(messages=turns, **asked)
    return call["id"], call["custom"]["name"], call["custom"]["input"]


async def asked_in_responses(client: openai.AsyncOpenAI, *, streamed: bool) -> tuple[str, str, str]:
    """The same with items."""
    items: Any = [{"role": "user", "content": "hi"}]
    asked: Any = {"model": "m", "tools": [FLAT], "tool_choice": "required"}
    if streamed:
        events: Any = [
            e async for e in await client.responses.create(input=items, stream=True, **asked)
        ]
        deltas = [e.delta for e in events if e.type == "response.custom_tool_call_input.delta"]
        assert "".join(deltas) == TEXT
        response = events[-1].response
    else:
        response = await client.responses.create(input=items, **asked)
    (call,) = response.output
    assert call.type == "custom_tool_call"
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
    await client.responses.create(input=[*items, call.to_dict(), output], **asked)
    return call.call_id, call.name, call.input


def handed_back(wire: str, body: dict[str, Any]) -> None:
    """Check what the second turn is in the upstream's words."""
    if wire == "chat":
        call, result = body["messages"][1:]
        custom = {"name": "patch", "input": TEXT}
        assert call["tool_calls"] == [{"id": "call_1", "type": "custom", "custom": custom}]
        assert result == {"role": "tool", "tool_call_id": "call_1", "content": "done"}
        assert body["tools"] == [NESTED]
        return
    call, result = body["input"][1:]
    item = {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": TEXT}
    assert call == item
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    assert (result, body["tools"]) == (output, [FLAT])


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("ask", [asked_in_chat, asked_in_responses], ids=["chat", "responses"])
async def test_a_call_comes_and_goes_back(
    redis_url: str, ask: Any, wire: str, streamed: bool
) -> None:
    """Same name, text and id, whichever the two; its input is paid for."""
    async with upstream(WIRES[wire]) as actor:
        endpoint = actor.endpoint("acme", backend="openai", api=wire, retries=0)
        async with (
            running(redis_url, settings(model(endpoint, id="m"))) as gateway,
            gateway.openai() as client,
        ):
            assert await ask(client, streamed=streamed) == ("call_1", "patch", TEXT)
            handed_back(wire, actor.calls[1].body)
            assert (await gateway.audited()).spent_nanodollars == 2 * 25_000


def handing_back(call: Any) -> list[Any]:
    """Return a conversation with a call and its result."""
    result = {"role": "tool", "tool_call_id": call["id"], "content": "done"}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        result,
    ]


@pytest.mark.parametrize(
    "kind", [{"backend": "anthropic"}, {"backend": "openai", "vendor": "groq"}]
)
async def test_an_upstream_without_them_is_a_400_that_names_them(
    redis_url: str, kind: dict[str, Any]
) -> None:
    """Nothing is asked, and nothing charged; also where fields may be dropped."""
    async with upstream(answer(["never"])) as actor:
        endpoint = actor.endpoint("acme", retries=0, **kind)
        async with (
            running(redis_url, settings(model(endpoint, id="m"))) as gateway,
            gateway.openai() as client,
        ):
            with pytest.raises(openai.BadRequestError, match=r"tools\.custom"):
                await client.responses.create(model="m", input="hi", tools=[FLAT])
            dropping = {"provider": {"require_parameters": False}}
            call = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
            for asked in ({"tools": [NESTED]}, {"messages": handing_back(call)}):
                refused = await gateway.chat(**asked, **dropping, model="m")
                assert refused.status_code == 400
                assert "tools.custom" in refused.json()["error"]["message"]
                assert "require_parameters" not in refused.json()["error"]["message"]
            assert actor.calls == []
            assert (await gateway.audited()).spent_nanodollars == 0
