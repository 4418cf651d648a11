"""Bad input over the wire: each gets a 4xx that says what to do, and the worker goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from gateway.app import NOT_OFFERED
from tests.gateway.upstreams import answer, upstream
from tests.gateway_harness import Gateway, fake, model, running, settings, status_of, until

pytestmark = pytest.mark.anyio

OK = {"model": "demo/fake", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A worker that does not wait long."""
    server = {"read_head_s": 0.2, "read_body_s": 0.2, "discard_body_s": 0.2}
    async with running(redis_url, settings(model(fake(tokens=2)), server=server)) as gateway:
        yield gateway


async def post(gateway: Gateway, content: bytes | str) -> httpx.Response:
    """Send a body as it is."""
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    return await gateway.client.post("/v1/chat/completions", content=content, headers=headers)


def refused(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Check the shape of an error and return it."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"code", "message", "type", "param", "metadata"}
    assert error["code"] == status
    assert isinstance(error["metadata"]["error_type"], str)
    return error


def with_(**changes: Any) -> dict[str, Any]:
    """A good request with something changed."""
    return OK | changes


def message(**fields: Any) -> dict[str, Any]:
    """A request with one message."""
    return with_(messages=[fields])


BODIES: list[tuple[Any, str | None, str]] = [
    (b"", None, "one JSON object in UTF-8"),
    (b"{", None, "one JSON object in UTF-8"),
    (b"nonsense", None, "one JSON object in UTF-8"),
    (b"[]", None, "must be a JSON object"),
    (b'"text"', None, "must be a JSON object"),
    (b"null", None, "must be a JSON object"),
    (b"{}", "messages", "required"),
    (b'{"a": 1} {"b": 2}', None, "one JSON object in UTF-8"),
    (b'\xff\xfe{"model": "x"}', None, "one JSON object in UTF-8"),
    (b'{"model": "demo/fake", "messages": [{"role": "user", "content": "\xc3("}]}', None, "UTF-8"),
    (b'{"temperature": NaN}', None, "one JSON object in UTF-8"),
    (b'{"temperature": Infinity}', None, "one JSON object in UTF-8"),
    (b"[" * 100_000, None, "nested"),
    (b'{"messages":' + b"[" * 200 + b"]" * 200 + b"}", None, "nested"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, None, "nested"),
    ({"messages": OK["messages"]}, "model", "GET /v1/models"),
    (with_(model=""), "model", "model's name"),
    (with_(model=7), "model", "model's name"),
    (with_(model="x" * 300), "model", "model's name"),
    (with_(model="demo/fakee"), "model", "did you mean 'demo/fake'?"),
    (with_(models="demo/fake"), "models", "must be a list"),
    (with_(models=["demo/fake", "nope"]), "model", "no model 'nope'"),
    ({"model": "demo/fake"}, "messages", "at least one message"),
    (with_(messages=[]), "messages", "at least one message"),
    (with_(messages=None), "messages", "at least one message"),
    (with_(messages="hi"), "messages", "at least one message"),
    (with_(messages=["hi"]), "messages[0]", "must be an object"),
    (message(role="robot", content="x"), "messages[0].role", "must be one of system"),
    (message(content="x"), "messages[0].role", "must be one of system"),
    (message(role=[], content="x"), "messages[0].role", "must be one of system"),
    (message(role="user"), "messages[0].content", "a string or a list of parts"),
    (message(role="user", content=7), "messages[0].content", "a string or a list of parts"),
    (message(role="user", content=[]), "messages[0].content", "a string or a list of parts"),
    (message(role="user", content=[{"type": "x"}]), "messages[0].content[0].type", "one of text"),
    (message(role="tool", content="x"), "messages[0].tool_call_id", "id of the tool call"),
    (with_(temperature=2.1), "temperature", "from 0 to 2"),
    (with_(temperature=-0.1), "temperature", "from 0 to 2"),
    (with_(temperature="1"), "temperature", "must be a number"),
    (with_(temperature=True), "temperature", "must be a number"),
    (with_(top_p=1.1), "top_p", "from 0 to 1"),
    (with_(presence_penalty=-2.5), "presence_penalty", "from -2 to 2"),
    (with_(frequency_penalty=2.5), "frequency_penalty", "from -2 to 2"),
    (with_(n=0), "n", "from 1 to 128"),
    (with_(n=129), "n", "from 1 to 128"),
    (with_(n=1.5), "n", "whole number"),
    (with_(max_tokens=0), "max_tokens", "at least 1"),
    (with_(max_tokens=-5), "max_tokens", "at least 1"),
    (with_(max_tokens="many"), "max_tokens", "whole number"),
    (with_(max_tokens=5, max_completion_tokens=6), "max_tokens", "differ"),
    (with_(stop=["a"] * 5), "stop", "at most 4"),
    (with_(stop=[""]), "stop[0]", "not empty"),
    (with_(stream="yes"), "stream", "true or false"),
    (with_(tools="f"), "tools", "must be a list"),
    (with_(tools=[{"type": "function"}]), "tools[0].function", "must be an object"),
    (with_(temprature=1), "temprature", "did you mean 'temperature'?"),
    (with_(functions=[]), "functions", "unknown field"),
    (with_(plugins=[{"id": "web"}]), "plugins", "not offered"),
    (with_(provider="acme"), "provider", "must be an object"),
    (with_(provider={"order": ["x"]}), "provider.order", "not offered yet"),
    (with_(tools=[{"type": "function", "function": {"name": "f"}}]), "tools", "does not honor"),
    (with_(logit_bias={"1": 5}), "logit_bias", "require_parameters=false"),
    (
        message(role="user", content=[{"type": "image_url", "image_url": {"url": "https://x/y"}}]),
        "image_url",
        "does not honor image_url",
    ),
]


async def test_every_bad_body_is_a_400_that_names_the_field_and_what_to_write(
    gateway: Gateway,
) -> None:
    """Wrong JSON, wrong types, out of range, missing, unknown: param, words, and life goes on."""
    for body, param, words in BODIES:
        content = body if isinstance(body, bytes) else json.dumps(body)
        error = refused(await post(gateway, content))
        shown = str(body)[:200]
        assert words in error["message"], (shown, error["message"])
        assert error["param"] == param, (shown, error)
        assert error["type"] == "invalid_request_error"
    assert (await gateway.chat()).status_code == 200
    assert (await gateway.audited()).spent_nanodollars == 2_000


async def test_absent_and_default_values_are_not_refused(gateway: Gateway) -> None:
    """Null and a field's default count as absent; of a repeated key the last counts."""
    for body in (
        with_(tools=None, logit_bias=None, provider=None, models=None),
        with_(tools=[], logit_bias={}, parallel_tool_calls=True, service_tier="auto"),
        with_(response_format={"type": "text"}, top_logprobs=0, logprobs=False),
        with_(user="u", metadata={"a": "b"}, trace={}, transforms=[], plugins=[], route="fallback"),
        with_(usage={"include": True}, stream_options={"include_usage": False}),
    ):
        assert (await post(gateway, json.dumps(body))).status_code == 200, body
    twice = json.dumps(OK)[:-1] + ', "temperature": 9, "temperature": 1}'
    assert (await post(gateway, twice)).status_code == 200


async def test_a_field_is_dropped_only_where_the_caller_allows_it(redis_url: str) -> None:
    """``require_parameters: false``: served without the field, said so in header and record."""
    async with upstream(answer(["ok "])) as up:
        plain = up.endpoint("up", capabilities={"tools": False})
        given = settings(model(plain, id="m"))
        async with running(redis_url, given) as gateway:
            tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
            error = refused(await gateway.chat(model="m", tools=tools))
            assert error["param"] == "tools"
            assert error["metadata"]["rejections"][0]["endpoint"] == "m@up"
            for stream in (False, True):
                reply = await gateway.chat(
                    model="m",
                    tools=tools,
                    seed=1,
                    stream=stream,
                    provider={"require_parameters": False},
                )
                assert reply.status_code == 200
                assert reply.headers["x-tollway-dropped"] == "tools"
                record = await gateway.generation(reply.headers["x-generation-id"])
                assert record["dropped"] == ["tools"]
            assert {"tools" in call.body for call in up.calls} == {False}
            assert {call.body["seed"] for call in up.calls} == {1}


async def test_to_call_none_of_the_tools_is_never_lost_in_silence(redis_url: str) -> None:
    """An endpoint that cannot be told would let the model call: it is out, or says so."""
    async with upstream(answer(["ok "])) as up:
        deaf = up.endpoint("up") | {"vendor": "cohere-compat"}
        async with running(redis_url, settings(model(deaf, id="m"))) as gateway:
            tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
            asked = {"model": "m", "tools": tools, "tool_choice": "none"}
            error = refused(await gateway.chat(**asked))
            assert error["param"] == "tool_choice"
            reply = await gateway.chat(**asked, provider={"require_parameters": False})
            assert reply.headers["x-tollway-dropped"] == "tool_choice"
            for harmless in ({"tool_choice": "none"}, {"tools": tools, "tool_choice": "auto"}):
                assert (await gateway.chat(model="m", **harmless)).status_code == 200
            assert {"tool_choice" in call.body for call in up.calls} == {False}


async def test_max_tokens_above_cap_or_window_is_refused_not_clamped(redis_url: str) -> None:
    """The error names the endpoint, the cap and the figure."""
    capped = fake(tokens=2) | {"max_output_tokens": 100, "context_tokens": 1000}
    async with running(redis_url, settings(model(capped))) as gateway:
        error = refused(await gateway.chat(max_tokens=101))
        assert error["param"] == "max_tokens"
        assert "its output cap of 100 tokens" in error["message"]
        assert (await gateway.chat(max_tokens=100)).status_code == 200


async def test_a_30_mb_body_gets_its_413_on_every_client(gateway: Gateway) -> None:
    """Read on and thrown away, so that a client that is still writing reads the answer."""
    text = "x" * 30_000_000
    error = refused(await post(gateway, json.dumps(with_(user=text))), 413)
    assert "20000000 bytes" in error["message"]
    assert error["metadata"]["error_type"] == "payload_too_large"
    async with gateway.openai() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(
                model="demo/fake", messages=[{"role": "user", "content": text}]
            )
    assert caught.value.status_code == 413
    reply = await gateway.exchange(gateway.request(messages=[{"role": "user", "content": text}]))
    assert status_of(reply) == 413
    wire = await gateway.connect()  # chunked, without a length
    head = gateway.request().split(b"\r\n\r\n")[0].replace(b"Content-Length", b"X-Length")
    wire.writer.write(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30):
        wire.writer.write(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        await wire.writer.drain()
    wire.writer.write(b"0\r\n\r\n")
    assert status_of(await wire.reader.read()) == 413
    await wire.close()
    assert (await gateway.chat()).status_code == 200


async def test_a_wrong_key_with_a_large_body_gets_its_401(gateway: Gateway) -> None:
    """The key is judged from the headers; the client reads the answer all the same."""
    messages = [{"role": "user", "content": "x" * 5_000_000}]
    assert (await gateway.chat("wrong", messages=messages)).status_code == 401
    reply = await gateway.exchange(gateway.request("wrong", messages=messages))
    assert status_of(reply) == 401


async def test_a_body_that_comes_too_slowly_is_a_408_and_ends_the_connection(
    gateway: Gateway,
) -> None:
    """A client that promises a body and does not send it holds nothing for long."""
    wire = await gateway.connect()
    wire.writer.write(gateway.request(close=False)[:-5])
    reply = await wire.reader.read()
    assert status_of(reply) == 408
    assert b"connection: close" in reply.lower()
    assert b"did not arrive within 0.2 s" in reply
    await wire.close()


async def test_a_body_over_the_limit_that_never_ends_is_a_413_and_ends_the_connection(
    gateway: Gateway,
) -> None:
    """Throwing away has a bound of its own."""
    wire = await gateway.connect()
    head = gateway.request(close=False).split(b"\r\n\r\n")[0]
    length = head.split(b"Content-Length: ")[1].split(b"\r\n")[0]
    wire.writer.write(head.replace(b": " + length, b": 90000000") + b"\r\n\r\n")
    wire.writer.write(b"x" * 21_000_000)
    reply = await wire.reader.read()
    assert status_of(reply) == 413
    assert b"connection: close" in reply.lower()
    await wire.close()


async def test_a_client_that_leaves_in_mid_body_costs_nothing(gateway: Gateway) -> None:
    """No exchange ever began."""
    wire = await gateway.connect()
    wire.writer.write(gateway.request()[:-5])
    await wire.writer.drain()
    await wire.close()
    assert (await gateway.chat()).status_code == 200
    assert len(gateway.worker.ticker) == 0


async def test_what_is_not_offered_says_so_by_name(gateway: Gateway) -> None:
    """Every route of the wider APIs is a 404 of its own words, with any method, at both roots."""
    for name, words in NOT_OFFERED.items():
        for path in (f"/v1/{name}", f"/api/v1/{name}", f"/v1/{name}/some/thing"):
            for method in ("GET", "POST", "DELETE"):
                error = refused(await gateway.client.request(method, path), 404)
                assert error["message"] == words


async def test_unknown_routes_and_wrong_methods_say_what_exists(gateway: Gateway) -> None:
    """404 names the path and where routes are listed; 405 names the methods in ``Allow``."""
    for path in ("/", "/v2/chat/completions", "/v1/chat", "/v1/chat/completions/x", "/%00", "/é"):
        error = refused(await gateway.client.get(path), 404)
        assert "/schema" in error["message"]
    reply = await gateway.client.get("/v1/chat/completions")
    error = refused(reply, 405)
    assert error["message"] == "GET is not allowed on '/v1/chat/completions'"
    assert "POST" in reply.headers["allow"]
    refused(await gateway.client.post("/v1/models"), 405)
    assert (await gateway.client.get("/schema/openapi.json")).status_code == 200


async def test_bytes_that_are_no_http_do_not_harm_the_worker(gateway: Gateway) -> None:
    """A 400 and the end of that connection, whatever was sent."""
    for garbage in (b"\x00\x01\x02\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n"):
        assert status_of(await gateway.exchange(garbage)) == 400
    assert (await gateway.chat()).status_code == 200


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "endless",
    [
        HEAD + b"X-More: and more\r\n" * 5_000,
        HEAD + b"X" * 70_000,
        HEAD + b"X-More: " + b"x" * 70_000,
        b"GET /" + b"x" * 70_000,
        b"\r\n" * 40_000,
    ],
    ids=["lines", "name", "value", "url", "nothing"],
)
async def test_headers_have_a_bound_in_bytes(redis_url: str, endless: bytes) -> None:
    """A 431 in the usual shape and the end, whatever is endless; no key is asked for."""
    async with running(redis_url, settings(model(fake(tokens=2)))) as gateway:
        reply = await gateway.exchange(endless)
        head, _, body = reply.partition(b"\r\n\r\n")
        assert status_of(reply) == 431
        assert b"connection: close" in head
        error = json.loads(body)["error"]
        assert (error["code"], error["type"]) == (431, "invalid_request_error")
        assert "65536 bytes" in error["message"]
        assert (await gateway.chat()).status_code == 200


async def test_headers_just_under_the_bound_and_pipelined_ones_are_served(
    gateway: Gateway,
) -> None:
    """The bound is each request's own."""
    large = gateway.request(close=False).replace(b"Host", b"X-More: " + b"x" * 60_000 + b"\r\nHost")
    last = gateway.request()
    reply = await gateway.exchange(large * 3 + last)
    assert reply.count(b"HTTP/1.1 200 OK") == 4


async def test_headers_that_never_end_are_a_408_and_silence_is_closed(gateway: Gateway) -> None:
    """A half-sent head has a deadline; who says nothing gets no answer."""
    async with asyncio.timeout(20):
        reply = await gateway.exchange(HEAD)
        assert status_of(reply) == 408
        assert b"the headers did not arrive within 0.2 s" in reply
        assert await gateway.exchange(b"") == b""


async def test_bodies_being_read_share_a_budget(redis_url: str) -> None:
    """Spent: a 503 with a wait; what ends or leaves gives its bytes back."""
    given = settings(model(fake(tokens=2)), server={"max_bodies_bytes": 1_000_000})
    async with running(redis_url, given) as gateway:
        bodies = gateway.worker.bodies
        messages = [{"role": "user", "content": "x" * 600_000}]
        request = gateway.request(messages=messages)
        first = await gateway.connect()
        first.writer.write(request[:-5])
        await until(lambda: bodies.held_bytes > 600_000)
        reply = await gateway.chat(messages=messages)
        error = refused(reply, 503)
        assert reply.headers["retry-after"] == "1"
        assert error["metadata"]["error_type"] == "provider_overloaded"
        assert (await gateway.chat()).status_code == 200
        first.writer.write(request[-5:])
        assert status_of(await first.reader.read()) == 200
        await first.close()
        assert bodies.held_bytes == 0
        gone = await gateway.connect()
        gone.writer.write(request[:-5])
        await until(lambda: bodies.held_bytes > 600_000)
        await gone.close()
        await until(lambda: bodies.held_bytes == 0)
        assert (await gateway.chat(messages=messages)).status_code == 200


async def test_a_hundred_bad_requests_at_once_leave_no_task_behind(gateway: Gateway) -> None:
    """Refusals own nothing that outlives them."""
    assert (await gateway.chat()).status_code == 200
    await gateway.worker.background.finish()
    bad = [gateway.request(temperature=9), gateway.request("x"), gateway.request(model="none")]
    replies = await asyncio.gather(*(gateway.exchange(bad[n % 3]) for n in range(99)))
    assert {status_of(reply) for reply in replies} == {400, 401}
    await gateway.worker.background.finish()
    assert len(gateway.worker.ticker) == 0
    assert not gateway.worker.background._tasks
