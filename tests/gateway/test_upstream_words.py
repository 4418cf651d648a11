"""What a caller is told of an upstream's refusal."""

from __future__ import annotations

import json
import logging

import pytest

from backends.errors import classify
from gateway.errors import AllFailed, backend_reply
from tests.gateway.upstreams import Call, refusal, upstream
from tests.gateway_harness import model, running, settings

KEY = "letmein9"
QUOTED = f"Incorrect API key provided: {KEY} (sk-proj-ab***yz9). You can find your key elsewhere."


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
