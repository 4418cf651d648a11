"""Embeddings through the gateway: finished answers without output, billed by their prompt."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import openrouter
import pytest
from openrouter import components

from policies.planner import PROMPT_OVERHEAD_TOKENS
from tests.gateway.upstreams import Call, upstream
from tests.gateway_harness import Gateway, fake, model, running, settings

pytestmark = pytest.mark.anyio

PRICE = {"prompt": "1", "completion": "1000"}


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A worker with a fake that embeds, and one that configuration says does not."""
    no = fake(PRICE) | {"capabilities": {"embeddings": False}}
    models = (model(fake(PRICE), id="demo/embed"), model(no, id="demo/chat"))
    async with running(redis_url, settings(*models)) as gateway:
        yield gateway


async def embed(gateway: Gateway, path: str = "/v1/embeddings", **body: Any) -> Any:
    """Post an embeddings request."""
    body.setdefault("model", "demo/embed")
    headers = {"Authorization": f"Bearer {gateway.key}"}
    return await gateway.client.post(path, json=body, headers=headers)


async def test_openais_client_reads_vectors(gateway: Gateway) -> None:
    """It asks for base64 unless told otherwise, and decodes that itself."""
    async with gateway.openai() as client:
        packed = await client.embeddings.create(model="demo/embed", input=["one", "two"])
        plain = await client.embeddings.create(
            model="demo/embed", input="one", encoding_format="float"
        )
    assert [list(item.embedding) for item in packed.data] == [[1.0, 0.0], [1.0, 1.0]]
    assert [item.index for item in packed.data] == [0, 1]
    assert plain.data[0].embedding == [1.0, 0.0]
    assert packed.model == "demo/embed"
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 6 // 4


async def test_openrouters_client_reads_vectors(gateway: Gateway) -> None:
    """Its models are strict: object, usage and cost are as it wants them."""
    async with openrouter.OpenRouter(
        api_key=gateway.key, server_url=f"{gateway.base_url}/api/v1"
    ) as client:
        answer = await client.embeddings.generate_async(
            model="demo/embed", input=["one", "two"], encoding_format="float"
        )
        listed = await client.embeddings.list_models_async()
    assert not isinstance(answer, str)
    assert [item.embedding for item in answer.data] == [[1.0, 0.0], [1.0, 1.0]]
    assert answer.usage is not None
    assert answer.usage.cost == pytest.approx(1e-6)
    assert listed is not None
    names = [one.id for one in listed.result.data]
    assert names == ["demo/embed"]
    assert isinstance(listed.result.data[0], components.Model)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/v1/embeddings"])
async def test_what_base64_was_asked_for_comes_as_base64(gateway: Gateway, path: str) -> None:
    """Little-endian 32-bit floats, whatever the upstream sent."""
    answer = await embed(gateway, path, input="one", encoding_format="base64")
    [item] = answer.json()["data"]
    assert struct.unpack("<2f", base64.b64decode(item["embedding"])) == (1.0, 0.0)
    assert item["object"] == "embedding"
    assert answer.json()["object"] == "list"


async def test_the_hold_is_the_prompt_and_the_charge_its_tokens(gateway: Gateway) -> None:
    """No output is held, however dear a completion would be; the report's zero is believed."""
    answer = await embed(gateway, input="x" * 400)
    assert answer.json()["usage"]["completion_tokens"] == 0
    record = await gateway.generation(answer.headers["x-generation-id"])
    body = len(json.dumps({"input": "x" * 400, "model": "demo/embed"}).encode())
    assert record["held_nanodollars"] <= (body + PROMPT_OVERHEAD_TOKENS) * 1000
    [line] = await gateway.journal()
    assert (line.charge_nanodollars, line.flags) == (100_000, ())
    assert dict(line.tokens) == {"prompt": 100, "completion": 0}
    await gateway.audited()


async def test_an_endpoint_that_does_not_embed_is_not_asked(gateway: Gateway) -> None:
    """Also where the caller allows dropping fields: it would be another question."""
    for provider in ({}, {"require_parameters": False}):
        answer = await embed(gateway, model="demo/chat", input="one", provider=provider)
        assert answer.status_code == 400
        assert "embeddings" in answer.text
    assert not await gateway.journal()


async def test_what_is_no_embeddings_request_is_refused_by_name(gateway: Gateway) -> None:
    """Before anything is held."""
    streamed = await embed(gateway, input="one", stream=True)
    assert (streamed.status_code, streamed.json()["error"]["param"]) == (400, "stream")
    unknown = await embed(gateway, input="one", temperature=1)
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "temperature")


async def test_no_output_limit_is_sent_and_a_wrong_count_is_no_answer(redis_url: str) -> None:
    """One vector for two texts: nobody is charged for it."""

    async def short(call: Call) -> None:
        await call.start()
        vectors = {"model": "m", "embeddings": [[1.0]], "prompt_eval_count": 2}
        await call.chunk(json.dumps(vectors).encode())
        await call.end()

    async with upstream(short) as actor:
        endpoint = {
            "backend": "ollama",
            "base_url": f"http://127.0.0.1:{actor.port}",
            "model": "m",
            "price": PRICE,
        }
        given = settings(model(endpoint, id="demo/embed"))
        async with running(redis_url, given) as gateway:
            one = await embed(gateway, input="one")
            two = await embed(gateway, input=["one", "two"])
            assert one.json()["data"][0]["embedding"] == [1.0]
            assert two.status_code == 502
            assert two.json()["error"]["metadata"]["provider_name"] == "ollama"
            await gateway.audited()
            assert len(await gateway.journal()) == 1
        assert actor.calls[0].body == {"model": "m", "input": ["one"], "truncate": False}
