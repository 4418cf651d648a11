"""Legacy completions through the gateway, from upstreams that know messages or bare text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.gateway.upstreams import Call, upstream
from tests.gateway_harness import Gateway, fake, model, read_events, running, settings

pytestmark = pytest.mark.anyio

PRICE = {"prompt": "1", "completion": "2"}


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A worker with a fake that says three words, and one that breaks off after two."""
    broken = fake(PRICE, tokens=3, fail={"how": "cut", "after_tokens": 2})
    models = (model(fake(PRICE, tokens=3)), model(broken, id="demo/broken"))
    async with running(redis_url, settings(*models)) as gateway:
        yield gateway


async def complete(gateway: Gateway, **body: Any) -> Any:
    """Post a completion request."""
    body.setdefault("model", "demo/fake")
    headers = {"Authorization": f"Bearer {gateway.key}"}
    return await gateway.client.post("/v1/completions", json=body, headers=headers)


async def test_openais_client_reads_whole_and_streamed_answers(gateway: Gateway) -> None:
    """The same text, reason and usage both ways."""
    async with gateway.openai() as client:
        whole = await client.completions.create(model="demo/fake", prompt="Once upon a")
        stream = await client.completions.create(
            model="demo/fake", prompt="Once upon a", stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert whole.object == "text_completion"
    assert whole.choices[0].text == "word0 word1 word2 "
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3
    assert "".join(chunk.choices[0].text for chunk in chunks) == "word0 word1 word2 "
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert [chunk.usage is not None for chunk in chunks] == [False, False, False, True]
    assert chunks[-1].usage == whole.usage


async def test_each_prompt_gets_its_answers_and_each_answer_its_hold(gateway: Gateway) -> None:
    """Two prompts with two answers each are four choices, in one reservation."""
    answer = await complete(gateway, prompt=["a", "b"], n=2, max_tokens=3)
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    record = await gateway.generation(answer.headers["x-generation-id"])
    assert record["held_nanodollars"] > 4 * 3 * 2000
    await gateway.settled()
    [line] = await gateway.journal()
    assert dict(line.tokens)["completion"] == 12
    assert line.flags == ()
    await gateway.audited()


async def test_a_stream_that_breaks_ends_with_its_error(gateway: Gateway) -> None:
    """An error chunk with what is charged, and no end marker."""
    answer = await complete(gateway, model="demo/broken", prompt="Once", stream=True)
    events = read_events(answer.content)
    assert events[-1]["error"]["code"] == 502
    assert events[-1]["choices"][0]["finish_reason"] == "error"
    assert events[-1]["usage"]["cost"] > 0
    async with gateway.openai() as client:
        stream = await client.completions.create(model="demo/broken", prompt="Once", stream=True)
        with pytest.raises(openai.APIError):
            _ = [chunk async for chunk in stream]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "messages": []}, "messages"),
    ],
)
async def test_what_is_no_completion_request_is_refused_by_name(
    gateway: Gateway, fields: dict[str, Any], param: str
) -> None:
    """In OpenAI's error shape."""
    answer = await complete(gateway, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_what_only_a_completions_wire_can_do_finds_no_endpoint(gateway: Gateway) -> None:
    """A suffix is part of the question, and is never dropped."""
    for provider in ({}, {"require_parameters": False}):
        answer = await complete(gateway, prompt="a", suffix="b", provider=provider)
        assert answer.status_code == 400
        assert "completions.suffix" in answer.text


async def test_a_text_server_gets_the_prompt_as_it_is(redis_url: str) -> None:
    """Its stop text, which it leaves in the answer, does not reach the client."""

    async def part(call: Call) -> None:
        await call.start()
        for text in (" a", " time", " EN", "D"):
            await call.event({"token": {"id": 1, "text": text, "special": False}})
        details = {"finish_reason": "stop_sequence", "generated_tokens": 4, "input_length": 3}
        await call.event({"generated_text": " a time END", "details": details})
        await call.end()

    async with upstream(part) as actor:
        url = f"http://127.0.0.1:{actor.port}"
        endpoint = {"backend": "tgi", "base_url": url, "price": PRICE}
        async with running(redis_url, settings(model(endpoint))) as gateway:
            answer = await complete(gateway, prompt="Once upon", stop="END", max_tokens=9)
            [choice] = answer.json()["choices"]
            assert (choice["text"], choice["finish_reason"]) == (" a time ", "stop")
            await gateway.settled()
            [line] = await gateway.journal()
            assert dict(line.tokens) == {"prompt": 3, "completion": 4}
        body = actor.calls[0].body
    assert body["inputs"] == "Once upon"
    assert body["parameters"]["max_new_tokens"] == 9
    assert body["parameters"]["stop"] == ["END"]
