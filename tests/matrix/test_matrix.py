"""Every client dialect over every upstream wire: one answer, whichever the two are.

Each cell runs through the running gateway, with a scripted upstream that speaks the wire's real
bytes, and is read as a client of that dialect reads. What cannot be is a documented 400.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.aws import aws_account
from tests.gateway_harness import Gateway, model, running, settings, until
from tests.matrix import dialects
from tests.matrix.dialects import EMBEDDINGS, SPEAKING, Dialect, Seen, events
from tests.matrix.wires import (
    CACHED_TOKENS,
    CALLS,
    COMPLETION_TOKENS,
    LATE,
    PROMPT_TOKENS,
    SIGNATURE,
    TEXT,
    THOUGHTS,
    WIRES,
    Wire,
)
from tests.upstream import Exchange, Script, Upstream, serving

pytestmark = pytest.mark.anyio

__all__ = ["aws_account"]

CELLS = [
    pytest.param(dialect, wire, id=f"{dialect.name}-{wire.name}")
    for dialect in SPEAKING
    for wire in WIRES
]


@pytest.fixture(autouse=True)
def secrets(aws_account: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every wire something to sign with, or a key."""
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream")


@asynccontextmanager
async def cell(
    redis_url: str, wire: Wire, *scripts: Script
) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """Run a gateway before a scripted upstream of one wire."""
    async with serving(*scripts) as upstream:
        endpoint = {
            "provider": "acme",
            "model": "up-model",
            "base_url": f"http://127.0.0.1:{upstream.port}{wire.root}",
            "price": {"prompt": "1", "completion": "2"},
            "retries": 0,
            **wire.endpoint,
        }
        if wire.endpoint["backend"] not in ("bedrock", "sagemaker"):
            endpoint["api_key_env"] = "UPSTREAM_KEY"
        models = model(endpoint, id="acme/model")
        async with running(redis_url, settings(models)) as gateway:
            yield gateway, upstream


def says(wire: Wire, pieces: list[bytes], *, end: bool = True) -> Script:
    """Return a script that sends an accepted answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.head(headers={"Content-Type": wire.content_type})
        await exchange.send(*pieces)
        if end:
            await exchange.end()
        else:
            await exchange.hang()

    return script


async def ask(
    gateway: Gateway, dialect: Dialect, scenario: str, *, stream: bool
) -> tuple[int, Seen, bytes]:
    """Ask in a dialect; return status, what a client reads, and the body."""
    body = dialect.ask("acme/model", scenario) | ({"stream": True} if stream else {})
    headers = {"Authorization": f"Bearer {gateway.key}"}
    answer = await gateway.client.post(dialect.path, json=body, headers=headers)
    if answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, dialect.read_stream(events(answer.content)), answer.content
    return answer.status_code, dialect.read_whole(answer.json()), answer.content


def arguments(seen: Seen) -> list[tuple[str, Any]]:
    """Return the calls as a program uses them."""
    return [(name, json.loads(text)) for name, text in seen.calls.values()]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("dialect", "wire"), CELLS)
async def test_an_answer_is_the_same_over_every_wire(
    redis_url: str, dialect: Dialect, wire: Wire, stream: bool
) -> None:
    """Text, calls, reasoning with its signature, the finish and the usage."""
    for scenario in dialect.scenarios:
        pieces = wire.bodies.get(scenario)
        if pieces is None and scenario != "tools":
            continue  # this wire has no such answer, and nothing in the request asks for one
        async with cell(redis_url, wire, says(wire, pieces or [])) as (gateway, upstream):
            status, seen, _ = await ask(gateway, dialect, scenario, stream=stream)
            if pieces is None:
                assert status == 400
                assert "tools" in (seen.error or "")
                assert upstream.requests == []
                continue
            assert (status, seen.error) == (200, None)
            if scenario == "text":
                assert seen.text == "".join(TEXT)
            if scenario == "tools":
                wanted = [(name, json.loads(text or "{}")) for _, name, text in CALLS]
                assert arguments(seen) == wanted
                assert len(set(seen.calls)) == 2
                assert all(seen.calls)
            if scenario == "reasoning":
                assert (seen.reasoning, seen.text) == ("".join(THOUGHTS), "Done")
                assert seen.signatures == ([SIGNATURE] if wire.signed else [])
            assert seen.finish == ("tool_calls" if scenario == "tools" else "stop")
            if wire.exact:
                assert (seen.prompt_tokens, seen.completion_tokens) == (
                    PROMPT_TOKENS,
                    COMPLETION_TOKENS,
                )
            assert seen.cached_tokens == (CACHED_TOKENS if wire.cached else dialect.unknown_count)
            assert seen.cost is not None
            assert seen.cost > 0
            await gateway.audited()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("dialect", "wire"), CELLS)
async def test_a_refusal_keeps_its_words_and_its_wait(
    redis_url: str, dialect: Dialect, wire: Wire, stream: bool
) -> None:
    """In the shape of the client's dialect, whoever said no."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(429, wire.refusal, {"Retry-After": "7"})

    async with cell(redis_url, wire, refuse) as (gateway, _):
        body = dialect.ask("acme/model", "text") | {"stream": stream}
        answer = await gateway.client.post(
            dialect.path, json=body, headers={"Authorization": f"Bearer {gateway.key}"}
        )
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        seen = dialect.read_whole(answer.json())
        assert "slow down" in (seen.error or "")
        assert seen.error_kind == "rate_limit_error"
        assert (await gateway.audited()).spent_nanodollars == 0


@pytest.mark.parametrize("how", ["error", "cut"])
@pytest.mark.parametrize(("dialect", "wire"), CELLS)
async def test_a_late_failure_is_told_and_what_came_before_is_kept(
    redis_url: str, dialect: Dialect, wire: Wire, how: str
) -> None:
    """An error in the wire's own words, or an end without a finish: never a clean end."""
    pieces = [*wire.start, wire.broken] if how == "error" else wire.start
    async with cell(redis_url, wire, says(wire, pieces)) as (gateway, _):
        status, seen, body = await ask(gateway, dialect, "text", stream=True)
        assert status == 200
        assert (seen.text, seen.finish) == (TEXT[0], None)
        assert seen.error is not None
        if how == "error":
            assert LATE in seen.error
        assert b"[DONE]" not in body
        assert b"message_stop" not in body
        assert b"response.completed" not in body
        await gateway.audited()


@pytest.mark.parametrize(("dialect", "wire"), CELLS)
async def test_a_client_that_leaves_closes_the_upstream(
    redis_url: str, dialect: Dialect, wire: Wire
) -> None:
    """At once, whatever the wire."""
    async with cell(redis_url, wire, says(wire, wire.start, end=False)) as (gateway, upstream):
        body = dialect.ask("acme/model", "text") | {"stream": True}
        headers = {"Authorization": f"Bearer {gateway.key}"}
        async with gateway.client.stream("POST", dialect.path, json=body, headers=headers) as got:
            assert got.status_code == 200
            async for piece in got.aiter_bytes():
                if TEXT[0].encode() in piece:
                    break
            exchange = await upstream.exchange()
        await until(exchange.gone.is_set)
        await gateway.audited()


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_embeddings_come_from_wires_that_have_them(redis_url: str, wire: Wire) -> None:
    """Everyone else is a 400 that names what is lacking."""
    vectors = [[0.5, -0.25], [1.0, 2.0]]
    answers: dict[str, Any] = {
        "openai": {
            "data": [{"index": n, "embedding": v} for n, v in enumerate(vectors)],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
        "ollama": {"embeddings": vectors, "prompt_eval_count": 4},
        "cohere": {
            "embeddings": {"float": vectors},
            "meta": {"billed_units": {"input_tokens": 4}, "tokens": {"input_tokens": 4}},
        },
    }

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, json.dumps(answers[wire.endpoint["backend"]]).encode())

    async with cell(redis_url, wire, script) as (gateway, upstream):
        status, seen, _ = await ask(gateway, EMBEDDINGS, "text", stream=False)
        if wire.endpoint["backend"] not in answers:
            assert status == 400
            assert "embeddings" in (seen.error or "")
            assert upstream.requests == []
            return
        assert (status, seen.error) == (200, None)
        assert json.loads(seen.text) == vectors
        assert seen.prompt_tokens == 4
        await gateway.audited()


def test_every_dialect_is_in_the_matrix() -> None:
    """Five of them, and at least ten wires."""
    assert len({dialect.name for dialect in (*SPEAKING, EMBEDDINGS)}) == 5
    assert len({wire.name for wire in WIRES}) >= 10
    assert dialects.CHAT in SPEAKING
