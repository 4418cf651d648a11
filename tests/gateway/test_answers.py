"""The shape of answers, whole and streamed, as clients of OpenAI and OpenRouter read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.gateway.upstreams import Call, answer, refusal, upstream
from tests.gateway_harness import Gateway, fake, model, read_events, running, settings, until

pytestmark = pytest.mark.anyio

COSTS = {
    "upstream_inference_cost",
    "upstream_inference_prompt_cost",
    "upstream_inference_completions_cost",
}
CHUNK_KEYS = ["id", "object", "created", "model", "provider", "choices"]


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A worker with a fake that says three words."""
    price = {"prompt": "1", "completion": "2"}
    models = model(fake(price, tokens=3, first_token_ms=1, token_ms=1), aliases=["fast"])
    async with running(redis_url, settings(models, markup="0.05")) as gateway:
        yield gateway


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
async def test_a_stream_has_the_shape_that_strict_clients_read(
    gateway: Gateway, prefix: str
) -> None:
    """Role and content in every delta, one closing chunk with reason and usage, then the end."""
    body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    answer = await gateway.client.post(
        f"{prefix}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {gateway.key}", "X-Request-Id": "mine-1"},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.content.startswith(b": tollway\n\n")
    events = read_events(answer.content)
    assert events[-1] == "[DONE]"
    chunks: list[dict[str, Any]] = events[:-1]
    assert {chunk["id"] for chunk in chunks} == {answer.headers["x-generation-id"]}
    for chunk in chunks:
        assert list(chunk)[:6] == CHUNK_KEYS
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["model"], chunk["provider"]) == ("demo/fake", "fake")
        assert "system_fingerprint" not in chunk
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        assert choice["delta"]["role"] == "assistant"
        assert isinstance(choice["delta"]["content"], str)
        assert {"finish_reason", "native_finish_reason", "logprobs"} <= set(choice)
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, "stop"]
    assert chunks[-1]["choices"][0]["native_finish_reason"] == "stop"
    assert ["usage" in chunk for chunk in chunks] == [False, False, False, True]
    usage = chunks[-1]["usage"]
    assert usage["is_byok"] is False
    assert set(usage["cost_details"]) == COSTS
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert [c["choices"][0]["delta"]["content"] for c in chunks] == [
        "word0 ",
        "word1 ",
        "word2 ",
        "",
    ]


async def test_a_whole_answer_has_every_field_that_strict_clients_require(gateway: Gateway) -> None:
    """The keys of the official SDKs, ``system_fingerprint`` null, usage with all its costs."""
    answer = await gateway.chat()
    document = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-generation-id"] == document["id"]
    assert answer.headers["x-request-id"].startswith("req-")
    assert document["object"] == "chat.completion"
    assert document["system_fingerprint"] is None
    assert (document["model"], document["provider"]) == ("demo/fake", "fake")
    (choice,) = document["choices"]
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "word0 word1 word2 ",
            "refusal": None,
            "reasoning": None,
        },
        "finish_reason": "stop",
        "native_finish_reason": "stop",
        "logprobs": None,
    }
    assert set(document["usage"]["cost_details"]) == COSTS


async def test_a_whole_answer_is_its_stream_collected(gateway: Gateway) -> None:
    """Text, finish and price of both are the same."""
    body = {"n": 2, "max_tokens": 2, "messages": [{"role": "user", "content": "the same"}]}
    whole = (await gateway.chat(**body, stream=False)).json()
    streamed = await gateway.stream(**body)
    texts = {0: "", 1: ""}
    for chunk in streamed.chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"]["content"]
    assert texts == {c["index"]: c["message"]["content"] for c in whole["choices"]}
    ends = {c["index"]: c["finish_reason"] for c in streamed.chunks[-1]["choices"]}
    assert (
        ends
        == {c["index"]: c["finish_reason"] for c in whole["choices"]}
        == {0: "length", 1: "length"}
    )
    usage = streamed.chunks[-1]["usage"]
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"] == 4


async def test_openais_own_client_reads_both(gateway: Gateway) -> None:
    """The official SDK sees text, finish and usage, and OpenRouter's additions beside them."""
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    async with gateway.openai(prefix="/api/v1") as client:
        whole = await client.chat.completions.create(model="demo/fake", messages=messages)
        stream = await client.chat.completions.create(
            model="demo/fake", messages=messages, stream=True
        )
        chunks = [chunk async for chunk in stream]
        listed = [entry.id async for entry in client.models.list()]
    assert whole.choices[0].message.content == "word0 word1 word2 "
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3
    assert whole.model_extra is not None
    assert whole.model_extra["provider"] == "fake"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "word0 word1 word2 "
    assert [c.choices[0].finish_reason for c in chunks] == [None, None, None, "stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert listed == ["demo/fake"]


async def test_an_error_before_content_is_an_http_error_with_its_own_status(redis_url: str) -> None:
    """Whole or streamed, nothing has been sent, so the status says it."""
    failing = model(fake(fail={"status": 503}), id="m/down")
    async with running(redis_url, settings(failing)) as gateway:
        for stream in (False, True):
            answer = await gateway.chat(model="m/down", stream=stream)
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-generation-id"].startswith("gen-")
            error = answer.json()["error"]
            assert error["code"] == 503
            assert error["metadata"]["error_type"] == "provider_overloaded"
            assert error["metadata"]["provider_name"] == "fake"
        async with gateway.openai() as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(
                    model="m/down", messages=[{"role": "user", "content": "x"}]
                )
        assert caught.value.status_code == 503


async def test_quiet_streams_get_headers_and_comments_and_in_band_errors(redis_url: str) -> None:
    """After ``first_comment_ms`` without content the headers go out; a failure then is in-band."""
    go_on = asyncio.Event()

    async def wait_then_refuse(call: Call) -> None:
        await go_on.wait()
        await refusal(400, "content_policy_violation", "not this")(call)

    async with upstream(wait_then_refuse) as up:
        given = settings(
            model(up.endpoint("slow"), id="m/slow"),
            server={"first_comment_ms": 1, "keepalive_ms": 2},
        )
        async with running(redis_url, given) as gateway:
            body = {
                "model": "m/slow",
                "messages": [{"role": "user", "content": "x"}],
                "stream": True,
            }
            headers = {"Authorization": f"Bearer {gateway.key}"}
            async with gateway.client.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers
            ) as answer:
                assert answer.status_code == 200
                pieces = answer.aiter_bytes()
                comments = b""
                while comments.count(b": tollway\n\n") < 3:  # the first, and two that keep alive
                    comments += await anext(pieces)
                assert set(comments.split(b"\n\n")) == {b": tollway", b""}
                go_on.set()
                rest = b"".join([piece async for piece in pieces])
            (chunk,) = read_events(rest)
            assert chunk["error"]["code"] == 400
            assert chunk["error"]["metadata"]["error_type"] == "content_policy_violation"
            assert chunk["choices"][0]["finish_reason"] == "error"
            assert (await gateway.audited()).spent_nanodollars == 0


async def test_a_stream_that_speaks_in_time_has_one_comment_only(redis_url: str) -> None:
    """The keep-alive clock starts anew with every chunk."""
    async with running(redis_url, settings(model(fake(tokens=5)))) as gateway:
        streamed = await gateway.stream()
        await gateway.worker.ticker.tick()
        assert streamed.answer.content.count(b": tollway") == 1


async def test_content_after_the_early_headers_is_a_normal_answer(redis_url: str) -> None:
    """A late first token changes nothing but the comments."""
    go_on = asyncio.Event()

    async def late(call: Call) -> None:
        await go_on.wait()
        await answer(["late "])(call)

    async with upstream(late) as up:
        given = settings(model(up.endpoint("slow"), id="m/slow"), server={"first_comment_ms": 1})
        async with running(redis_url, given) as gateway, gateway.openai() as client:
            stream = await client.chat.completions.create(
                model="m/slow", messages=[{"role": "user", "content": "x"}], stream=True
            )
            go_on.set()  # the headers are here, the content is not
            chunks = [chunk async for chunk in stream]
            assert [c.choices[0].delta.content for c in chunks] == ["late ", ""]
            assert chunks[-1].usage is not None


async def test_tool_calls_and_reasoning_pass_through_whole_and_streamed(redis_url: str) -> None:
    """Tool calls keep id, name and arguments; their deltas have null content."""
    call = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a"'},
    }
    rest = {"index": 0, "function": {"arguments": ": 1}"}}

    async def part(asked: Call) -> None:
        await asked.start()
        for delta in ({"reasoning": "hm"}, {"tool_calls": [call]}, {"tool_calls": [rest]}):
            await asked.event({"choices": [{"index": 0, "delta": delta}]})
        await asked.finish("tool_calls", {"prompt_tokens": 5, "completion_tokens": 9})
        await asked.end()

    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with (
        upstream(part) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        streamed = await gateway.stream(model="m", tools=tools)
        deltas = [chunk["choices"][0]["delta"] for chunk in streamed.chunks]
        assert deltas[0] == {"role": "assistant", "content": "", "reasoning": "hm"}
        assert [d["content"] for d in deltas] == ["", None, None, ""]
        assert deltas[1]["tool_calls"][0]["function"] == {"arguments": '{"a"', "name": "f"}
        whole = (await gateway.chat(model="m", tools=tools)).json()["choices"][0]
        assert whole["finish_reason"] == "tool_calls"
        assert whole["message"]["content"] is None
        assert whole["message"]["reasoning"] == "hm"
        (made,) = whole["message"]["tool_calls"]
        assert json.loads(made["function"]["arguments"]) == {"a": 1}


async def test_request_ids_are_kept_only_if_they_are_safe(gateway: Gateway) -> None:
    """A client's id goes into headers and logs only in a plain alphabet; every answer has one."""
    for given, kept in (("a.b:c-1_2", True), ("a b", False), ("é", False), ("x" * 129, False)):
        headers = {"X-Request-Id": given.encode("latin-1")}
        for path in ("/health/live", "/nowhere", "/v1/models"):
            answer = await gateway.client.get(path, headers=headers)
            assert (answer.headers["x-request-id"] == given) is kept
            assert kept or answer.headers["x-request-id"].startswith("req-")


async def test_the_request_id_goes_to_the_upstream(redis_url: str) -> None:
    """One name finds a request in the client's, our and the upstream's logs."""
    async with (
        upstream(answer(["hi "])) as up,
        running(redis_url, settings(model(up.endpoint("up"), id="m"))) as gateway,
    ):
        reply = await gateway.chat(model="m")
        assert reply.status_code == httpx.codes.OK
        await until(lambda: up.calls)
        assert up.calls[0].headers["x-request-id"] == reply.headers["x-request-id"]
        assert up.calls[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("stream", [True, False])
async def test_citations_that_come_before_any_text_reach_the_client(
    redis_url: str, stream: bool
) -> None:
    """They are no content, so they commit nothing; with the first text they go out."""
    said = asyncio.Event()

    async def cites_first(call: Call) -> None:
        await call.start()
        note = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
        delta = {"content": "", "annotations": [note]}
        await call.event({"choices": [{"index": 0, "delta": delta}]})
        await said.wait()  # a read of its own
        await call.word("Hello")
        await call.finish("stop", {"prompt_tokens": 7, "completion_tokens": 1})
        await call.end()

    async with upstream(cites_first) as serving:
        models = model(serving.endpoint("acme"))
        async with running(redis_url, settings(models)) as gateway:
            asked = asyncio.ensure_future(gateway.chat(stream=stream))
            await until(lambda: serving.calls)
            await until(lambda: gateway.worker.table.endpoints[0].in_flight)
            for _ in range(20):
                await asyncio.sleep(0)
            said.set()
            answer = await asked
    if stream:
        chunks = [event for event in read_events(answer.content) if isinstance(event, dict)]
        found = [chunk["choices"][0]["delta"].get("annotations") for chunk in chunks]
        notes = [note for entry in found if entry for note in entry]
    else:
        notes = answer.json()["choices"][0]["message"]["annotations"]
    assert [note["url_citation"]["url"] for note in notes] == ["https://a.example"]
