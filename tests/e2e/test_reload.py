"""SIGHUP: a new configuration for new requests, nothing lost of the old ones."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yaml

from tests.served import Served, alive, until

pytestmark = pytest.mark.anyio

Make = Callable[[dict[str, Any] | None], Served]
TOKENS = 100


def fake(name: str, **script: Any) -> dict[str, Any]:
    """A scripted model."""
    price = {"prompt": "0", "completion": "1"}
    return {"id": name, "endpoints": [{"backend": "fake", "script": script, "price": price}]}


SLOW = fake("demo/slow", tokens=TOKENS, token_ms=60)


def names(server: Served) -> list[str]:
    """What the catalogue lists."""
    try:
        page = httpx.get(f"{server.url}/v1/models", trust_env=False).json()
    except httpx.HTTPError:
        return []
    return [found["id"] for found in page["data"]]


def versions(server: Served) -> dict[str, str]:
    """The configuration of each worker."""
    return {
        child["name"]: child["configuration"]
        for child in server.status()["children"]
        if child["role"] == "worker"
    }


def reload(server: Served, text: str) -> None:
    """Write a configuration and say so."""
    assert server.config is not None
    assert server.process is not None
    server.config.write_text(text)
    server.process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_serves_new_models_and_finishes_open_streams(
    served: Make, workers: int
) -> None:
    """The stream ends in full after the old worker stopped taking requests; every worker moves."""
    server = served({"models": [SLOW], "server": {"drain_seconds": 1}})
    server.workers = workers
    await server.start()
    key = server.key("acct", "--credit", "1")
    before = versions(server)
    assert len(before) == workers
    (old,) = set(before.values())
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "demo/slow", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        new = {"models": [SLOW, fake("demo/new")], "server": {"drain_seconds": 1}}
        reload(server, yaml.safe_dump(new))
        await until(lambda: "demo/new" in names(server), 30)
        rest = [line async for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert sum('"content":"' in line for line in rest) >= TOKENS - 2
    await until(lambda: len(versions(server)) == workers, 20)
    after = versions(server)
    assert not set(after) & set(before)
    assert len(set(after.values())) == 1
    assert old not in after.values()
    assert server.credits()["spent_nanodollars"] == TOKENS * 1000
    server.pids()
    assert await server.stop() == 0


async def test_a_broken_file_changes_nothing(served: Make) -> None:
    """It is said in the log; and a good one after it is served."""
    server = served({"models": [fake("demo/one")]})
    await server.start()
    before = server.pids()
    reload(server, "models: [{id: x}]")
    await until(lambda: "the old configuration is kept" in server.errors, 20)
    assert "models.0.endpoints: is required" in server.errors
    assert server.pids() == before
    assert names(server) == ["demo/one"]
    reload(server, yaml.safe_dump({"models": [fake("demo/two")]}))
    await until(lambda: names(server) == ["demo/two"], 30)
    await until(lambda: not alive(before["worker-1"]), 20)
    reload(server, yaml.safe_dump({"models": [fake("demo/three")]}))
    await until(lambda: names(server) == ["demo/three"], 30)
    await asyncio.sleep(0)
    assert await server.stop() == 0
