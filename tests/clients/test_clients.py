"""Clients that nobody here wrote, each in an environment of its own: ``make test-clients``.

They are unmodified but for base URL and key. The upstream is scripted; the gateway is real.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.upstreams import assistant, upstream
from tests.gateway_harness import Gateway, model, running, settings

pytestmark = [pytest.mark.anyio, pytest.mark.clients]

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".bench"
TEXT = "Hello wörld"
CALL = ["get_weather", {"city": "Köln"}]


@pytest.fixture
async def gateway(redis_url: str) -> AsyncIterator[Gateway]:
    """A gateway before the assistant."""
    async with upstream(assistant) as serving:
        endpoint = serving.endpoint("acme", price={"prompt": "1", "completion": "2"})
        async with running(redis_url, settings(model(endpoint, id="acme/model"))) as gateway:
            yield gateway


async def run(gateway: Gateway, *command: str, last: str = "") -> dict[str, Any]:
    """Run a client against the gateway; return what it printed."""
    words = [*command, f"{gateway.base_url}/v1", gateway.key, *([last] if last else [])]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-3000:]
    seen: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    sys.stderr.write(f"\n{Path(command[-1]).name}: {seen.pop('version')}\n")
    await gateway.audited()
    return seen


def python(name: str, script: str) -> tuple[str, str]:
    """Return the command of a Python client, in its environment."""
    found = ENVIRONMENTS / name / "bin" / "python"
    assert found.exists(), "run `make test-clients`: it makes the environments"
    return str(found), str(HERE / script)


async def node(gateway: Gateway, script: str) -> dict[str, Any]:
    """Run a JavaScript client; modules are found from where the script lies."""
    folder = ENVIRONMENTS / "clients-node"
    modules = folder / "node_modules"
    assert modules.exists(), "run `make test-clients`: it makes the environments"
    copy = folder / script
    copy.write_text((HERE / script).read_text(encoding="utf-8"), encoding="utf-8")
    return await run(gateway, "node", str(copy), last=str(modules))


def check(seen: dict[str, Any]) -> None:
    """What every client of the chat dialect understands."""
    assert (seen["whole"], seen["streamed"]) == (TEXT, TEXT)
    assert (seen["usage"], seen["usage_streamed"]) == (11, 11)
    if "finish" in seen:
        assert (seen["finish"], seen["finish_streamed"]) == ("stop", "stop")
    if "calls" in seen:
        assert seen["calls"] == seen["calls_streamed"] == [CALL]


async def test_langchain_openrouter_understands_us(gateway: Gateway) -> None:
    """PyPI langchain-openrouter, on an old release of OpenRouter's strict SDK."""
    check(await run(gateway, *python("clients-langchain", "langchain_client.py")))


async def test_pydantic_ai_understands_us(gateway: Gateway) -> None:
    """PyPI pydantic-ai-slim, with its OpenRouter model: also a whole tool loop."""
    seen = await run(gateway, *python("clients-pydantic", "pydantic_client.py"))
    check(seen)
    assert (seen["looped"], seen["looped_streamed"]) == (TEXT, TEXT)
    assert seen["cities"] == ["Köln", "Köln"]


async def test_npm_openai_understands_us(gateway: Gateway) -> None:
    """Chat and Responses."""
    seen = await node(gateway, "node_openai.mjs")
    check(seen)
    assert (seen["response"], seen["response_streamed"]) == (TEXT, TEXT)
    assert seen["response_usage"] == 11


async def test_npm_openrouter_understands_us(gateway: Gateway) -> None:
    """OpenRouter's own SDK in TypeScript, which checks every answer against its schema."""
    seen = await node(gateway, "node_openrouter.mjs")
    check(seen)
    assert seen["models"] == ["acme/model"]


async def test_npm_ai_sdk_provider_understands_us(gateway: Gateway) -> None:
    """OpenRouter's provider for Vercel's AI SDK."""
    check(await node(gateway, "node_aisdk.mjs"))
