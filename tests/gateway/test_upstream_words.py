"""What a caller is told of an upstream's refusal."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backends.errors import classify
from gateway.errors import AllFailed, backend_reply
from tests.gateway.upstreams import Call, Part, refusal, upstream
from tests.gateway_harness import Gateway, model, running, settings

KEY = "letmein9"
QUOTED = f"Incorrect API key provided: {KEY} (sk-proj-ab***yz9). You can find your key elsewhere."


@asynccontextmanager
async def asked(redis_url: str, *parts: Part) -> AsyncIterator[Gateway]:
    """Run a gateway whose model "m" is at an upstream that does this, and is not tried again."""
    async with upstream(*parts) as up:
        given = settings(model(up.endpoint("up", retries=0), id="m"))
        async with running(redis_url, given) as gateway:
            yield gateway


@pytest.mark.parametrize(
    ("status", "code"), [(400, None), (400, "invalid_api_key"), (401, None), (403, None)]
)
def test_the_gateways_own_key_is_never_repeated(status: int, code: str | None) -> None:
    """Upstreams quote it, also under the status of a wrong request, and anywhere in an error."""
    words = "Incorrect API key provided: sk-secret" if code is None else "sk-secret"
    error = classify(status, words, code=code)
    for reply in (
        backend_reply(error, "acme"),
        AllFailed([("acme", error), ("other", classify(500, words, code="sk-secret"))]).reply,
    ):
        assert "sk-secret" not in str(reply)
        assert f"credential ({status})" in str(reply)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (402, "Insufficient Balance"),
        (403, "Country, region, or territory not supported"),
        (403, "You don't have access to the model with the specified model ID."),
        (401, "No API key found in request"),
    ],
)
def test_the_vendors_own_words_reach_the_caller(status: int, words: str) -> None:
    """With the note that it is no key or account of the caller's that was refused."""
    reply = backend_reply(classify(status, words), "acme")
    told = f"the endpoint refuses this gateway's own credential ({status})"
    assert reply.message == f"acme: {told}: {words}"
    assert reply.status == 502


def test_only_a_rejected_request_names_the_field() -> None:
    """What another kind of error names is nothing that the caller could change."""
    for status, param in ((400, "temperature"), (401, None), (429, None), (500, None)):
        assert backend_reply(classify(status, "no", param="temperature"), "a").param == param


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_the_vendors_field_reaches_the_caller(redis_url: str, path: str) -> None:
    """In both shapes of an error."""
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

    async def part(call: Call) -> None:
        await call.start(400)
        await call.chunk(b'{"error": {"message": "no", "param": "messages[0].content"}}')
        await call.end()

    async with asked(redis_url, part) as gateway:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        reply = await gateway.client.post(path, json=body, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content"


@pytest.mark.anyio
async def test_no_status_is_made_up_for_an_error_in_a_stream(redis_url: str) -> None:
    """The upstream answered with 200, and told none."""

    async def part(call: Call) -> None:
        await call.start()
        await call.word("hello")
        await call.chunk(b'data: {"error": {"message": "no more birds"}}\n\n')
        await call.end()

    async with asked(redis_url, part) as gateway:
        streamed = await gateway.stream(model="m")
    (error,) = streamed.errors
    assert error["message"] == "up: no more birds"
    assert "upstream_status" not in error["metadata"]


@pytest.mark.anyio
@pytest.mark.parametrize("body", [
    b'{"code": 429, "message": "no more birds", "data": null}',
    b'data: {"code": "429", "message": "no more birds"}\n\ndata: [DONE]\n\n',
    b'event: error\ndata: no more birds\n\n',
    b'{"base_resp": {"status_code": 1002, "status_msg": "no more birds"}}',
])  # fmt: skip
async def test_an_error_without_a_shape_is_told(redis_url: str, body: bytes) -> None:
    """Under HTTP 200, whole or in a stream; nothing is charged."""

    async def part(call: Call) -> None:
        await call.start()
        await call.chunk(body)
        await call.end()

    async with asked(redis_url, part) as gateway:
        reply = await gateway.chat(model="m")
        balance = await gateway.audited()
    assert reply.json()["error"]["message"] == "up: no more birds"
    assert reply.status_code == (502 if b"event:" in body else 429)
    assert balance.spent_nanodollars == 0


@pytest.mark.anyio
async def test_a_wait_that_only_the_words_tell_reaches_the_caller(redis_url: str) -> None:
    """As whole seconds, upward."""
    limited = refusal(429, message="Rate limit reached. Please try again in 1m12.3s.")
    async with asked(redis_url, limited) as gateway:
        reply = await gateway.chat(model="m")
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "73")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wait", "told"), [("1e300", "86400"), (f"Mon, 01 Jan 2024 00:00:00 +{'9' * 14}", None)]
)
async def test_an_absurd_wait_is_no_fault_of_ours(
    redis_url: str, wait: str, told: str | None
) -> None:
    """It is cut to a day, or is none."""
    async with asked(redis_url, refusal(429, Retry_After=wait)) as gateway:
        reply = await gateway.chat(model="m")
    assert (reply.status_code, reply.headers.get("retry-after")) == (429, told)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_that_quotes_the_key(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
) -> None:
    """A key of any shape is known by having been sent; logs and records have no words at all."""
    monkeypatch.setenv("ACME_KEY", KEY)
    caplog.set_level(logging.INFO)
    first, second = refusal(401, message=QUOTED), refusal(403, message=f"{KEY} has no plan")
    async with upstream(first) as one, upstream(second) as two:
        endpoints = [up.endpoint(up_name, api_key_env="ACME_KEY") for up, up_name in
                     ((one, "one"), (two, "two"))]  # fmt: skip
        given = settings(model(*endpoints, id="m", strategy="ordered"))
        async with running(redis_url, given) as gateway:
            reply = await gateway.chat(model="m", stream=stream)
            record = await gateway.generation(reply.headers["x-generation-id"])
    assert one.calls[0].headers["authorization"] == f"Bearer {KEY}"
    assert reply.status_code == 502
    error = reply.json()["error"]
    assert error["message"].endswith("credential (403): [redacted] has no plan")
    (before,) = error["metadata"]["previous_errors"]
    assert before["message"].endswith(
        "credential (401): Incorrect API key provided: [redacted] ([redacted]). "
        "You can find your key elsewhere."
    )
    assert KEY not in reply.text + json.dumps(record) + caplog.text
    assert "no plan" not in json.dumps(record) + caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_in_a_code_or_a_field(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Every text of an error is looked through, in an answer or after content."""
    monkeypatch.setenv("ACME_KEY", KEY)
    told = {"message": f"{'w ' * 998}{KEY}", "code": f"no {KEY}", "param": f"the.{KEY}"}

    async def part(call: Call) -> None:
        await call.start(200 if stream else 400)
        if stream:
            await call.word("hello")
        body = json.dumps({"error": {**told, "type": "t"}}).encode()
        await call.chunk(b"data: " + body + b"\n\n" if stream else body)
        await call.end()

    async with upstream(part) as up:
        given = settings(model(up.endpoint("up", api_key_env="ACME_KEY", retries=0), id="m"))
        async with running(redis_url, given) as gateway:
            if stream:
                (error,) = (await gateway.stream(model="m")).errors
            else:
                error = (await gateway.chat(model="m")).json()["error"]
    assert error["metadata"]["provider_code"] == "no [redacted]"
    assert error["param"] == (None if stream else "the.[redacted]")
    assert KEY[:4] not in json.dumps(error)


@pytest.mark.anyio
async def test_a_refusal_that_quotes_the_caller_rests_nothing(redis_url: str) -> None:
    """A stop sequence with the words of a bad key is the caller's fault, and nobody else's."""
    words = "Invalid 'stop': ['invalid api key'] is not supported"
    async with asked(redis_url, refusal(400, "invalid_value", words)) as gateway:
        reply = await gateway.chat(model="m", stop=["invalid api key"])
        assert not gateway.worker.table.endpoint("m@up").breaker.is_open
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, f"up: {words}")


@pytest.mark.anyio
async def test_an_error_in_a_stream_that_quotes_the_key(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rule after content."""
    monkeypatch.setenv("ACME_KEY", KEY)

    async def part(call: Call) -> None:
        await call.start()
        await call.word("hello")
        error = {"error": {"message": QUOTED, "type": "authentication_error"}}
        await call.chunk(b"data: " + json.dumps(error).encode() + b"\n\n")
        await call.end()

    async with upstream(part) as up:
        given = settings(model(up.endpoint("up", api_key_env="ACME_KEY"), id="m"))
        async with running(redis_url, given) as gateway:
            streamed = await gateway.stream(model="m")
    (error,) = streamed.errors
    assert "Incorrect API key provided: [redacted] ([redacted])." in error["message"]
    assert KEY not in streamed.answer.text
