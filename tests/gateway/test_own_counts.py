"""Where no report counts an answer, the endpoint's tokenizer does; bytes / 4 only without one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.tokens import Tokens
from policies.ledger.base import JournalLine
from tests.gateway.tokenizers import NAME, listener, served
from tests.gateway.upstreams import Part, answer, cut, silence, upstream
from tests.gateway_harness import MESSAGES, PROMPT_TOKENS, Gateway, model, running, settings, until

pytestmark = pytest.mark.anyio

WORDS = ("Straßenbahn", "haltestelle ", "🚏 ", "and ", "so ", "on")
TEXT = "".join(WORDS)
NO_USAGE = answer(WORDS, usage=None)
WILD = answer(WORDS, usage={"prompt_tokens": 7, "completion_tokens": 10**6})


async def tokens(path: str) -> dict[str, int]:
    """The right counts of prompt and answer, neither of them a quarter of its bytes."""
    await served(path)
    ask = Tokens(path)
    prompt = await ask.count("test", NAME, MESSAGES[0]["content"])
    completion = await ask.count("test", NAME, TEXT)
    assert prompt is not None
    assert completion is not None
    assert prompt != PROMPT_TOKENS
    assert completion != len(TEXT.encode()) // 4
    return {"prompt": prompt, "completion": completion}


async def the_line(gateway: Gateway) -> JournalLine:
    """The only settled line, which costs what it counts."""
    balance = await gateway.audited()
    (line,) = await gateway.journal()
    charge = line.tokens["prompt"] * 1000 + line.tokens["completion"] * 2000
    assert line.charge_nanodollars == charge == balance.spent_nanodollars
    assert "own_count" in line.flags
    return line


@pytest.mark.parametrize(
    ("part", "flag"), [(NO_USAGE, "usage_missing"), (WILD, "usage_above_hold")]
)
async def test_a_finished_answer_without_a_usable_report_is_counted(
    redis_url: str, process: str, part: Part, flag: str
) -> None:
    """And the client is told what it pays for."""
    expected = await tokens(process)
    async with upstream(part) as up:
        given = settings(model(up.endpoint("up", tokenizer=NAME), id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            streamed = await gateway.stream(model="m", max_tokens=1000)
            assert (streamed.text, streamed.done) == (TEXT, True)
            line = await the_line(gateway)
    assert line.tokens == expected
    assert set(line.flags) == {flag, "own_count"}
    usage = streamed.chunks[-1]["usage"]
    assert usage["prompt_tokens"] == expected["prompt"]
    assert usage["completion_tokens"] == expected["completion"]


async def test_a_whole_answer_is_counted_too(redis_url: str, process: str) -> None:
    """It is the same path."""
    expected = await tokens(process)
    async with upstream(NO_USAGE) as up:
        given = settings(model(up.endpoint("up", tokenizer=NAME), id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            assert (await gateway.chat(model="m", max_tokens=1000)).status_code == 200
            assert (await the_line(gateway)).tokens == expected


async def test_what_a_client_got_before_it_left_is_counted(redis_url: str, process: str) -> None:
    """The upstream is closed before that, at once."""
    expected = await tokens(process)
    async with upstream(silence(*WORDS)) as up:
        given = settings(model(up.endpoint("up", tokenizer=NAME), id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            wire = await gateway.connect()
            wire.writer.write(gateway.request(model="m", stream=True, max_tokens=1000))
            for word in WORDS:
                await wire.read_until(f'"content":"{word}"'.encode())
            await wire.close()
            (call,) = await until(lambda: up.calls)
            await call.gone.wait()
            line = await the_line(gateway)
    assert line.tokens == expected
    assert set(line.flags) == {"cut", "own_count"}


LONG = "The quick brown fox jumps over the lazy dog. " * 200
"""Some 2,000 tokens."""

FOX: dict[str, Any] = {"type": "function", "function": {"name": "f", "description": LONG}}
CALLS: dict[str, dict[str, Any]] = {
    "function": {"function": {"name": "f", "arguments": LONG}},
    "custom": {"type": "custom", "custom": {"name": "f", "input": LONG}},
    "other": {"type": "other", "other": {"words": LONG}},
}


def says(*parts: dict[str, Any], role: str = "user", **more: Any) -> dict[str, Any]:
    """A request of these parts."""
    return {"messages": [{"role": role, "content": list(parts)}, *MESSAGES], **more}


PROMPTS = {
    "thought": says({"type": "text", "text": f"{LONG}</think>"}),
    "space": says({"type": "text", "text": " \n" * 4_000}),
    "parts": says(*({"type": "text", "text": LONG[:2_000]} for _ in range(4))),
    "tools": {"messages": MESSAGES, "tools": [FOX]},
    **{
        f"{kind} call": {
            "messages": [
                *MESSAGES,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", **call}]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
            ]
        }
        for kind, call in CALLS.items()
    },
}


@pytest.mark.parametrize("tokenizer", [NAME, None])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
async def test_no_part_of_a_prompt_is_free_for_a_client_that_leaves(
    redis_url: str, process: str, prompt: dict[str, Any], tokenizer: str | None
) -> None:
    """Whatever a template might leave out of it; also where bytes stand in."""
    await tokens(process)
    async with upstream(silence("word ")) as up:
        named = {"tokenizer": tokenizer} if tokenizer else {}
        given = settings(model(up.endpoint("up", **named), id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            wire = await gateway.connect()
            body = {"model": "m", "stream": True, "max_tokens": 1000, **prompt}
            wire.writer.write(gateway.request(**body))
            await wire.read_until(b'"content":"word "')
            await wire.close()
            line = await the_line(gateway)
    assert set(line.flags) == {"cut", "own_count"}
    assert 1_500 < line.tokens["prompt"] < 3_000


@pytest.mark.parametrize("tokenizer", [NAME, None])
async def test_tools_that_an_endpoint_never_gets_are_not_counted(
    redis_url: str, process: str, tokenizer: str | None
) -> None:
    """Where the caller allows leaving them out."""
    expected = await tokens(process)
    named = {"tokenizer": tokenizer} if tokenizer else {}
    if not tokenizer:
        expected = {"prompt": PROMPT_TOKENS, "completion": len(TEXT.encode()) // 4}
    async with upstream(NO_USAGE) as up:
        endpoint = up.endpoint("up", **named, capabilities={"tools": False})
        given = settings(model(endpoint, id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            loose = {"require_parameters": False}
            reply = await gateway.chat(model="m", max_tokens=1000, tools=[FOX], provider=loose)
            assert reply.status_code == 200, reply.text
            assert (await the_line(gateway)).tokens == expected


async def test_what_came_before_the_upstream_broke_off_is_counted(
    redis_url: str, process: str
) -> None:
    """The error in the stream says the same usage as the journal."""
    expected = await tokens(process)
    async with upstream(cut(*WORDS)) as up:
        given = settings(model(up.endpoint("up", tokenizer=NAME), id="m"))
        async with running(redis_url, given, tokenizer=process) as gateway:
            streamed = await gateway.stream(model="m", max_tokens=1000)
            assert streamed.errors
            line = await the_line(gateway)
    assert line.tokens == expected
    assert streamed.chunks[-1]["usage"]["completion_tokens"] == expected["completion"]


@pytest.mark.parametrize("part", [NO_USAGE, cut(*WORDS)])
async def test_without_the_process_in_time_bytes_stand_in(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    """Nobody waits long for it."""
    monkeypatch.setattr("gateway.counts.ANSWER_S", 0.05)
    over = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        over.set()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(say_nothing, path), upstream(part) as up:
        given = settings(model(up.endpoint("up", tokenizer=NAME), id="m"))
        async with running(redis_url, given, tokenizer=path) as gateway:
            assert (await gateway.stream(model="m", max_tokens=1000)).text == TEXT
            line = await the_line(gateway)
        await over.wait()
    assert line.tokens == {"prompt": PROMPT_TOKENS, "completion": len(TEXT.encode()) // 4}


async def test_nothing_is_counted_where_a_report_counts_or_the_pieces_are_mixed(
    redis_url: str, tmp_path: Path
) -> None:
    """A report that is believed, an endpoint without a tokenizer, several answers at once."""
    path = str(tmp_path / "s")
    async with (
        listener(path) as asked,
        upstream(answer(WORDS)) as good,
        upstream(NO_USAGE) as bad,
    ):
        models = (
            model(good.endpoint("up", tokenizer=NAME), id="good"),
            model(bad.endpoint("up"), id="unnamed"),
            model(bad.endpoint("up", tokenizer=NAME), id="bad"),
        )
        async with running(redis_url, settings(*models), tokenizer=path) as gateway:
            wanted: list[dict[str, Any]] = [
                {"model": "good"},
                {"model": "unnamed"},
                {"model": "bad", "n": 2},
            ]
            for body in wanted:
                await gateway.stream(max_tokens=1000, **body)
                assert asked == [], body
            await gateway.stream(model="bad", max_tokens=1000)
            assert asked == [1, 1]
            await gateway.audited()
