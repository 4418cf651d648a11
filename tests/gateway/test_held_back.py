"""Dialects that send one call after another hold pieces back: nobody pays for those."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.upstreams import Call, upstream
from tests.gateway_harness import model, running, settings

pytestmark = pytest.mark.anyio

BIG = "x" * 40_000
ASKED: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "hi", "max_output_tokens": 50_000},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50_000},
}


def piece(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    """A chunk with a piece of a call."""
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if name:
        call |= {"id": f"call_{index}", "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}


@pytest.mark.parametrize("path", ASKED)
async def test_a_client_that_leaves_pays_nothing_for_what_waited(redis_url: str, path: str) -> None:
    """The second call waits for the end of the first, which never comes."""
    told = asyncio.Event()

    async def part(call: Call) -> None:
        await call.start()
        await call.word("Hello")
        await call.event(piece(0, '{"a":', "first"))
        await call.event(piece(1, '{"b":"', "second"))
        await call.event(piece(1, BIG))
        await call.event(piece(0, "12345678"))
        told.set()
        await call.gone.wait()

    async with upstream(part) as actor:
        given = settings(model(actor.endpoint("acme", retries=0), id="m"))
        async with running(redis_url, given) as gateway:
            body = {"model": "m", "stream": True, **ASKED[path]}
            headers = {"Authorization": f"Bearer {gateway.key}"}
            asking = gateway.client.stream("POST", path, json=body, headers=headers)
            async with asking as answer:
                got = b""
                async for data in answer.aiter_bytes():
                    got += data
                    if b"12345678" in got:
                        break
            assert told.is_set()
            assert BIG.encode() not in got
            spent = (await gateway.audited()).spent_nanodollars
            # Text, id, name and arguments of the first call are 31 bytes.
            assert spent <= 31 // 4 * 2_000
